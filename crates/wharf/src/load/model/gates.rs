//! Gates: conditions on the result, for scripts.

use std::str::FromStr;

/// One expectation, such as `held=1000`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expectation {
    name: &'static str,
    comparison: Comparison,
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Comparison {
    Equal,
    AtLeast,
    AtMost,
}

/// The counts that gates may name.
pub(crate) const NAMES: [&str; 13] = [
    "asked",
    "connected",
    "failed",
    "unfinished",
    "late",
    "held",
    "lost",
    "messages",
    "messages_late",
    "messages_unsent",
    "messages_unanswered",
    "unbegun",
    "corrupt",
];

impl FromStr for Expectation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = || {
            format!(
                "write NAME=NUMBER, NAME>=NUMBER or NAME<=NUMBER, where NAME is one \
                               of {}",
                NAMES.join(", ")
            )
        };
        let comparisons = [
            (">=", Comparison::AtLeast),
            ("<=", Comparison::AtMost),
            ("=", Comparison::Equal),
        ];
        for (sign, comparison) in comparisons {
            let Some((name, number)) = text.split_once(sign) else {
                continue;
            };
            let known = NAMES.into_iter().find(|known| *known == name.trim());
            let number = number.trim().parse().ok();
            return known
                .zip(number)
                .map(|(name, number)| Expectation {
                    name,
                    comparison,
                    number,
                })
                .ok_or_else(hint);
        }
        Err(hint())
    }
}

impl Expectation {
    /// The name of the count.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Why the gate does not hold, if it does not.
    pub(crate) fn missed(&self, count_of: impl Fn(&str) -> u64) -> Option<String> {
        let count = count_of(self.name);
        let (holds, sign) = match self.comparison {
            Comparison::Equal => (count == self.number, "="),
            Comparison::AtLeast => (count >= self.number, ">="),
            Comparison::AtMost => (count <= self.number, "<="),
        };
        (!holds).then(|| format!("expected {}{sign}{}: it is {count}", self.name, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(text: &str) -> Option<String> {
        let expectation: Expectation = text.parse().expect(text);
        expectation.missed(|name| if name == "held" { 10 } else { 0 })
    }

    #[test]
    fn expectations_compare() {
        for met in ["held=10", "held >= 10", "held<=10", "lost=0", "failed<=5"] {
            assert_eq!(missed(met), None, "{met}");
        }
        for (text, sentence) in [
            ("held=9", "expected held=9: it is 10"),
            ("held>=11", "expected held>=11: it is 10"),
            ("held<=9", "expected held<=9: it is 10"),
        ] {
            assert_eq!(missed(text).as_deref(), Some(sentence));
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_names() {
        for wrong in ["", "held", "held=", "held=ten", "heldd=1", "=1", "held=-1"] {
            let error = wrong.parse::<Expectation>().expect_err(wrong);
            assert!(error.contains("connected"), "{error}");
        }
    }
}
