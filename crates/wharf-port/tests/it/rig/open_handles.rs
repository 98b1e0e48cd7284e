//! The open handles of this process on Windows, and which of them a child would inherit.
//!
//! It queries each possible handle number: no documented call lists the open handles, and a call
//! that only counts them does not report inheritance. One call for each number costs milliseconds.

use windows_sys::Win32::Foundation::{GetHandleInformation, HANDLE_FLAG_INHERIT};

/// Handles are multiples of four, and the lowest free one is used: no case has this many.
const HANDLES_MAX: usize = 4_096;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Open {
    pub(crate) number: usize,
    pub(crate) is_inherited: bool,
}

pub(crate) fn all() -> Vec<Open> {
    let numbers = (1..HANDLES_MAX).map(|place| place * 4);
    numbers.filter_map(look).collect()
}

fn look(number: usize) -> Option<Open> {
    let mut flags = 0;
    let handle = std::ptr::without_provenance_mut(number);
    // SAFETY: the handle is a number to the system, which refuses one that is not open; `flags`
    // is a local that outlives the call.
    let is_open = unsafe { GetHandleInformation(handle, &raw mut flags) } != 0;
    is_open.then_some(Open {
        number,
        is_inherited: flags & HANDLE_FLAG_INHERIT != 0,
    })
}
