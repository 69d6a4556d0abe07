//! What the user expects of the restored database: SQL with an expected result.

use std::fmt;
use std::time::{Duration, Instant};

use camino::Utf8Path;

use super::report::AssertionReport;
use crate::error::Result;
use crate::findings::Verdict;
use crate::observe::Cancel;
use crate::sqlite::{Answer, ask};

/// No assertion takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A statement and what it is to give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    sql: String,
    expect: String,
    comparison: Comparison,
    value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// The longer ones first: the shorter are their beginnings.
const COMPARISONS: [(&str, Comparison); 7] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Assertion {
    /// From a statement and an expectation: `>= 1`, `= ok`, or a bare value that the result is to equal.
    ///
    /// # Errors
    ///
    /// What is wrong, as a clause.
    pub fn new(sql: &str, expect: &str) -> Result<Self, String> {
        if sql.trim().is_empty() {
            return Err("its sql is empty".to_owned());
        }
        let text = expect.trim();
        let found =
            COMPARISONS.iter().find_map(|(sign, comparison)| Some((*comparison, text.strip_prefix(sign)?.trim())));
        let (comparison, value) = found.unwrap_or((Comparison::Equal, text));
        if value.is_empty() {
            return Err("its expect has no value; write such as \">= 1\" or \"ok\"".to_owned());
        }
        let is_order = !matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if value.starts_with(['<', '>', '=', '!']) || (is_order && number(value).is_none()) {
            return Err(format!(
                "its expect, {expect:?}, is none: =, !=, <, <=, > or >= and a value, which is a number for the last four"
            ));
        }
        Ok(Self { sql: sql.to_owned(), expect: expect.to_owned(), comparison, value: value.to_owned() })
    }

    /// Whether a result is as expected. Numbers are compared as numbers.
    fn holds(&self, found: Option<&str>) -> bool {
        let Some(found) = found else { return false };
        let whole = |text: &str| text.parse::<i128>().ok();
        let order = match (whole(found).zip(whole(&self.value)), number(found).zip(number(&self.value))) {
            // Large ones are not the same because a fraction could not tell them apart.
            (Some((found, value)), _) => Some(found.cmp(&value)),
            (None, Some((found, value))) => found.partial_cmp(&value),
            (None, None) => None,
        };
        let is_equal = order.map_or(found == self.value, std::cmp::Ordering::is_eq);
        match self.comparison {
            Comparison::Equal => is_equal,
            Comparison::NotEqual => !is_equal,
            Comparison::Less => order.is_some_and(std::cmp::Ordering::is_lt),
            Comparison::AtMost => order.is_some_and(std::cmp::Ordering::is_le),
            Comparison::Greater => order.is_some_and(std::cmp::Ordering::is_gt),
            Comparison::AtLeast => order.is_some_and(std::cmp::Ordering::is_ge),
        }
    }

    /// Asks a database that nobody has open.
    pub(super) fn check(&self, database: &Utf8Path, cancel: &Cancel) -> Result<AssertionReport> {
        self.check_within(database, TIME_LIMIT, cancel)
    }

    /// In at most so long.
    pub(crate) fn check_within(
        &self,
        database: &Utf8Path,
        limit: Duration,
        cancel: &Cancel,
    ) -> Result<AssertionReport> {
        let report = |verdict, found, error| AssertionReport {
            sql: self.sql.clone(),
            expect: self.expect.clone(),
            found,
            verdict,
            error,
        };
        let deadline = Instant::now() + limit;
        Ok(match ask(database, &self.sql, deadline, cancel)? {
            Answer::Value(found) if self.holds(found.as_deref()) => report(Verdict::Pass, found, None),
            Answer::Value(found) => report(Verdict::Fail, found, None),
            Answer::Refused(why) => report(Verdict::Fail, None, Some(why)),
            Answer::NotDone(why) => report(Verdict::Inconclusive, None, Some(why)),
        })
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} expects {}", self.sql, self.expect)
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use proptest::prelude::*;

    use super::*;

    fn holds(expect: &str, found: &str) -> bool {
        Assertion::new("SELECT 1", expect).unwrap().holds(Some(found))
    }

    #[test]
    fn expectations_are_compared_as_numbers_where_they_are() {
        for (expect, good, bad) in [
            (">= 1", "1", "0"),
            (">1", "10", "1"),
            ("< 2", "1.5", "2"),
            ("<= -1", "-1", "0"),
            ("= 5", "5.0", "6"),
            ("== ok", "ok", "OK"),
            ("!= 0", "1", "0.0"),
            ("ok", "ok", "not ok"),
            ("5", "5", "50"),
            ("9007199254740993", "9007199254740993", "9007199254740992"),
        ] {
            assert!(holds(expect, good), "{expect} {good}");
            assert!(!holds(expect, bad), "{expect} {bad}");
        }
        // What is no number is less than nothing, and NULL or no row is as expected never.
        assert!(!holds("< 2", "x") && !holds(">= 2", "x"));
        assert!(!Assertion::new("SELECT 1", "!= 1").unwrap().holds(None));
    }

    #[test]
    fn what_cannot_hold_or_fail_is_refused() {
        for expect in ["", " ", ">=", "> x", "<> 1", "=> 1", "!", ">= nan", "< inf"] {
            let made = Assertion::new("SELECT 1", expect);
            assert!(made.is_err() || expect == "!", "{expect}: {made:?}");
        }
        assert!(Assertion::new("  ", "1").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_expectations_never_panic(sql: String, expect: String, found: String) {
            if let Ok(assertion) = Assertion::new(&sql, &expect) {
                let held = assertion.holds(Some(&found));
                prop_assert_eq!(held, assertion.holds(Some(&found)));
            }
        }
    }
}
