//! `--touch`: which held connections must prove that they live.
//!
//! The seed and the number of a connection decide whether it is chosen. So the load starts a
//! receive on a chosen connection from the start, and only watches the others, which costs the
//! kernel no more memory. Choosing at the end was rejected for that reason.

use std::str::FromStr;

/// A share of connections.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Touch {
    share: f64,
}

impl FromStr for Touch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').unwrap_or(text).trim();
        match percent.parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Touch {
                share: percent / 100.0,
            }),
            _ => Err("write a part of a hundred, such as 1% or 0.1%".into()),
        }
    }
}

impl Touch {
    /// Whether it chooses this connection of the load.
    pub(crate) fn chooses(self, seed: u64, connection: u32) -> bool {
        // The final step of splitmix64: different numbers give different results.
        let mixed = seed.wrapping_add(u64::from(connection).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mixed = mixed ^ (mixed >> 31);
        ((mixed >> 11) as f64) < self.share * (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_chooses_its_share_and_another_one_with_another_seed() {
        let one: Touch = "1%".parse().expect("a share");
        let chosen = |seed| -> Vec<u32> {
            let all = 0..100_000;
            all.filter(|&connection| one.chooses(seed, connection))
                .collect()
        };
        let (first, second) = (chosen(1), chosen(2));
        assert!((800..1_200).contains(&first.len()), "{}", first.len());
        assert_eq!(first, chosen(1));
        let both = first.iter().filter(|it| second.contains(it)).count();
        assert!(both < 50, "{both} of {}", first.len());
    }

    #[test]
    fn all_is_all_and_nothing_is_nothing() {
        let (all, nothing): (Touch, Touch) = ("100".parse().unwrap(), "0%".parse().unwrap());
        for connection in 0..10_000 {
            assert!(all.chooses(3, connection) && !nothing.chooses(3, connection));
        }
        for wrong in ["", "-1%", "101%", "few", "NaN"] {
            assert!(wrong.parse::<Touch>().is_err(), "{wrong}");
        }
    }
}
