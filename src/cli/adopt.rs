//! `adopt`: a manifest for database files that other tools have made.

use engram_restore::signature::signature_path;
use engram_restore::{
    AdoptOptions, AdoptPlan, Adopted, Adoption, Error, ErrorKind, Event, Finding, Observer as _, Placement, Result,
    Verdict, adopt, plan_adopt,
};
use serde_json::{Value, json};

use super::args::AdoptArgs;
use super::context::{Context, absolute};
use super::exit::Exit;
use super::output::{Outcome, bytes, error_json, printable};
use super::progress::Progress;
use super::show::integrity_json;

pub(crate) fn run(args: &AdoptArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    if args.at.is_some() && args.files.len() > 1 {
        return Err(
            Error::new(ErrorKind::Usage, "use", "--at").because("it is the time of one file, and there are several")
        );
    }
    let placement = if args.into_archive || args.fold {
        Placement::Copied { archive: context.archive()?, fold: args.fold }
    } else {
        Placement::Beside
    };
    let source = context.if_named()?;
    if source.is_none() {
        let text = "nobody has said with --db which database this is a backup of: it counts as one of the file itself";
        progress.event(Event::Warning(text));
    }
    // Without a home there is no default database, and none is needed.
    let live = context.database().ok();
    let keys = context.keys()?;
    let mut done = Done::default();
    for file in &args.files {
        let options = AdoptOptions {
            file: absolute(file)?,
            placement: placement.clone(),
            source: source.clone(),
            live: live.clone(),
            label: args.label.clone(),
            created_at: args.at,
            max_time: args.max_time,
            now: jiff::Timestamp::now(),
            keys: keys.clone(),
        };
        let answer = if args.dry_run {
            plan_adopt(&options, progress).map(|plan| done.planned(&options, plan))
        } else {
            adopt(&options, context.storage(), progress).map(|adoption| done.note(&options, adoption))
        };
        match answer {
            Ok(()) => {}
            // What was adopted before is found again as a backup by the next run.
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Internal) => return Err(e),
            Err(e) => done.fail(&options, e),
        }
    }
    Ok(done.outcome(args.dry_run))
}

/// What came of all files.
#[derive(Default)]
struct Done {
    adopted: Vec<Value>,
    refused: Vec<Value>,
    failed: Vec<Value>,
    plan: Vec<Value>,
    verdicts: Vec<Verdict>,
    /// The first of those that failed.
    error: Option<Error>,
    lines: Vec<String>,
}

impl Done {
    fn note(&mut self, options: &AdoptOptions, adoption: Adoption) {
        match adoption {
            Adoption::Adopted(adopted) => self.add(options, &adopted, false),
            Adoption::Already(adopted) => self.add(options, &adopted, true),
            Adoption::Refused(findings) => self.refuse(options, &findings),
        }
    }

    fn add(&mut self, options: &AdoptOptions, adopted: &Adopted, already: bool) {
        let Adopted { backup, manifest_path, manifest, folded } = adopted;
        let signature = signature_path(manifest_path);
        let did = if already { "is a backup already:" } else { "adopted" };
        self.lines.push(format!("{did} {backup}"));
        let (size, at) = (bytes(manifest.file.size_bytes), manifest.created_at);
        self.lines.push(format!("  {size} of {at:.0}, BLAKE3 {}", manifest.file.blake3));
        self.lines.push(format!("  a backup of {}", manifest.source.path));
        self.lines.extend(folded.iter().map(|sidecar| format!("  with what was in {sidecar}")));
        self.adopted.push(json!({
            "file": options.file,
            "backup": backup,
            "manifest": manifest_path,
            "signature": signature.is_file().then_some(&signature),
            "integrity_check": integrity_json(&manifest.integrity_check),
            "created_at": manifest.created_at,
            "size_bytes": manifest.file.size_bytes,
            "blake3": manifest.file.blake3,
            "source": manifest.source.path,
            "label": manifest.label,
            "folded": folded,
            "already": already,
        }));
    }

    fn refuse(&mut self, options: &AdoptOptions, findings: &[Finding]) {
        self.verdicts.push(Verdict::of(findings));
        self.lines.push(format!("refused {}", options.file));
        self.lines.extend(findings.iter().map(|finding| format!("  {}: {}", finding.code, finding.message)));
        self.refused.push(json!({ "file": options.file, "findings": findings }));
    }

    fn fail(&mut self, options: &AdoptOptions, error: Error) {
        self.failed.push(json!({ "file": options.file, "error": error_json(&error) }));
        if self.error.is_some() {
            self.lines.push(format!("not adopted {}: {}", options.file, error.message()));
        }
        self.error.get_or_insert(error);
    }

    fn planned(&mut self, options: &AdoptOptions, plan: AdoptPlan) {
        let (backup, source, created_at, folds) = match plan {
            AdoptPlan::Answer(answer) => return self.note(options, answer),
            AdoptPlan::Adopt { backup, source, created_at, folds } => (backup, source, created_at, folds),
        };
        match &backup {
            Some(backup) => self.lines.push(format!("would adopt {backup}")),
            None => self.lines.push(format!("would copy {} into the archive and adopt that", options.file)),
        }
        self.lines.push(format!("  as a backup of {source} of {created_at:.0}"));
        self.lines
            .extend(folds.iter().map(|sidecar| format!("  with what is in {sidecar}; its content is checked then")));
        self.plan.push(json!({
            "file": options.file, "backup": backup, "source": source, "created_at": created_at, "folds": folds,
        }));
    }

    /// Damage outweighs what could not be done, and that what could not be seen.
    fn outcome(mut self, dry_run: bool) -> Outcome {
        let any = |wanted: Verdict| self.verdicts.contains(&wanted);
        let exit = match &self.error {
            _ if any(Verdict::Fail) => Exit::Damaged,
            Some(error) => Exit::of_error(error.kind(), None),
            None if any(Verdict::Inconclusive) => Exit::Inconclusive,
            None => Exit::Done,
        };
        let mut fields = json!({ "adopted": self.adopted, "refused": self.refused, "failed": self.failed });
        if dry_run {
            fields["dry_run"] = true.into();
            fields["plan"] = self.plan.into();
            self.lines.push("nothing was changed".to_owned());
        }
        let text = self.lines.iter().map(|line| printable(line) + "\n").collect();
        let outcome = Outcome { error: self.error, ..Outcome::new(exit, fields, text) };
        if dry_run { outcome.essential() } else { outcome }
    }
}
