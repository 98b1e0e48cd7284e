//! Random programs, on every driver (`real`) and on the simulated network (`sim`).

pub(crate) mod real;
pub(crate) mod sim;

/// Two different elements of a slice, which Rust 1.86 does by itself.
pub(crate) fn two_of<T>(all: &mut [T], first: usize, second: usize) -> (&mut T, &mut T) {
    let (low, high) = all.split_at_mut(first.max(second));
    match first < second {
        true => (&mut low[first], &mut high[0]),
        false => (&mut high[0], &mut low[second]),
    }
}
