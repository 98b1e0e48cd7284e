//! Placeholder while the wheel is being written: an ordered map.
use std::collections::BTreeMap;
use std::time::Instant;
#[derive(Debug)]
pub(crate) struct Timers<T> {
    map: BTreeMap<(Instant, u32), T>,
    ids: std::collections::HashMap<u32, Instant>,
    next: u32,
    max: u32,
}
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}
impl<T: Copy> Timers<T> {
    pub(crate) fn new(_start: Instant, timers_max: u32) -> Self {
        Timers {
            map: BTreeMap::new(),
            ids: Default::default(),
            next: 0,
            max: timers_max,
        }
    }
    pub(crate) fn insert(&mut self, deadline: Instant, value: T) -> Option<TimerId> {
        if self.map.len() >= self.max as usize {
            return None;
        }
        self.next += 1;
        self.map.insert((deadline, self.next), value);
        self.ids.insert(self.next, deadline);
        Some(TimerId {
            index: self.next,
            generation: 0,
        })
    }
    pub(crate) fn cancel(&mut self, id: TimerId) -> Option<T> {
        let d = self.ids.remove(&id.index)?;
        self.map.remove(&(d, id.index))
    }
    pub(crate) fn next_deadline(&mut self) -> Option<Instant> {
        self.map.keys().next().map(|k| k.0)
    }
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(TimerId, T)> {
        let k = *self.map.keys().next()?;
        if k.0 > now {
            return None;
        }
        self.ids.remove(&k.1);
        self.map.remove(&k).map(|v| {
            (
                TimerId {
                    index: k.1,
                    generation: 0,
                },
                v,
            )
        })
    }
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}
