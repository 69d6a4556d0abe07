//! The processes beside the commands: started, paused, killed, listened to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Result;

/// A commit or a read beside a restore takes no longer; then it hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What they have said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    pub(crate) checked: u64,
    pub(crate) rounds: u64,
    /// Of the library's user: open descriptors after its third round, and at most since; resident KiB at most.
    pub(crate) descriptors: Option<(u64, u64)>,
    pub(crate) resident_kib: u64,
    pub(crate) violations: Vec<String>,
}

/// One process.
struct Actor {
    words: Vec<String>,
    child: Child,
    answers: Receiver<()>,
}

/// All of them.
pub(crate) struct Crew {
    actors: Vec<Actor>,
    heard: Arc<Mutex<Heard>>,
    writers: usize,
    /// This program, where another build does not replace it.
    program: Utf8PathBuf,
}

impl Crew {
    pub(crate) fn start(folder: &Utf8Path, logs: &[Utf8PathBuf], readers: usize) -> Result<Self> {
        let program = folder.join("xtask");
        std::fs::copy(std::env::current_exe()?, &program)?;
        let (database, archive) = (folder.join("data/engram.db"), folder.join("backups"));
        let mut crew = Self { actors: Vec::new(), heard: Arc::default(), writers: logs.len(), program };
        for (number, log) in logs.iter().enumerate() {
            crew.add(&["writer", database.as_str(), log.as_str(), "--number", &number.to_string()])?;
        }
        for _ in 0..readers {
            crew.add(&["reader", database.as_str(), "-"])?;
        }
        crew.add(&["library", database.as_str(), archive.as_str()])?;
        Ok(crew)
    }

    fn add(&mut self, words: &[&str]) -> Result {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        let actor = Actor::start(&self.program, words, &[], &self.heard)?;
        self.actors.push(actor);
        Ok(())
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// None of them has the database open until [`Self::go`].
    pub(crate) fn pause(&mut self) -> Result {
        self.tell("pause")
    }

    pub(crate) fn go(&mut self) -> Result {
        self.tell("go")
    }

    fn tell(&mut self, order: &str) -> Result {
        for actor in &mut self.actors {
            let input = actor.child.stdin.as_mut().ok_or("it has no input")?;
            writeln!(input, "{order}")?;
        }
        for actor in &self.actors {
            match actor.answers.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("{:?} hangs: it does not {order}", actor.words).into());
                }
                Err(RecvTimeoutError::Disconnected) => return Err(format!("{:?} has ended", actor.words).into()),
            }
        }
        Ok(())
    }

    /// Kills a writer wherever it is, and starts it again; what it had committed without being told is not counted.
    pub(crate) fn kill_writer(&mut self, number: usize, first: u64) -> Result {
        let actor = &mut self.actors[number % self.writers];
        actor.child.kill()?;
        actor.child.wait()?;
        let more = ["--first".to_owned(), first.to_string()];
        *actor = Actor::start(&self.program, actor.words.clone(), &more, &self.heard)?;
        Ok(())
    }

    /// Ends all of them.
    pub(crate) fn end(&mut self) -> Result {
        for mut actor in self.actors.drain(..) {
            drop(actor.child.stdin.take());
            let status = actor.child.wait()?;
            if !status.success() {
                return Err(format!("{:?} has ended with {status}", actor.words).into());
            }
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for actor in &mut self.actors {
            actor.child.kill().unwrap_or_default();
        }
    }
}

impl Actor {
    fn start(program: &Utf8Path, words: Vec<String>, more: &[String], heard: &Arc<Mutex<Heard>>) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("soak-actor").args(&words).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or("it has no output")?;
        let (sender, answers) = channel();
        let heard = Arc::clone(heard);
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
                hear(&line, &heard, &sender);
            }
        });
        Ok(Self { words, child, answers })
    }
}

fn hear(line: &str, heard: &Mutex<Heard>, answers: &Sender<()>) {
    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let words: Vec<_> = line.split(' ').collect();
    match words[..] {
        // Who has asked may have given up.
        ["paused" | "gone"] => answers.send(()).unwrap_or_default(),
        ["checked", count] => heard.checked += count.parse().unwrap_or(0),
        ["library", descriptors, resident] => {
            let descriptors = descriptors.parse().unwrap_or(u64::MAX);
            heard.rounds += 1;
            heard.resident_kib = heard.resident_kib.max(resident.parse().unwrap_or(u64::MAX));
            if heard.rounds == 3 {
                heard.descriptors = Some((descriptors, descriptors));
            }
            if let Some((_, most)) = &mut heard.descriptors {
                *most = descriptors.max(*most);
            }
        }
        _ => heard.violations.push(line.to_owned()),
    }
}
