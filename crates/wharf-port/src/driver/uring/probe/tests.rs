//! The trial on kernels that lack something, and on sockets of each kind.
//!
//! Older kernels are simulated by requests that this kernel refuses or handles in the way that they
//! do. `cargo xtask kernels` runs the same tests on the older kernels themselves.

use super::*;

fn try_with(listener: &Listener, capped: fn(&Handle) -> Entry) -> Option<Abilities> {
    let trial = Trial::new(capped).expect("a ring");
    trial.operations(listener).expect("no error of the system")
}

/// Whether io_uring is available. Without it no test can try it.
fn is_here() -> bool {
    let here = Trial::new(capped).is_ok();
    if !here {
        println!("no ring can be made here");
    }
    here
}

const WITHOUT_CAPS: Option<Abilities> = Some(Abilities {
    caps_streams: false,
});

/// A cap that means "none": no kernel ends a multishot receive because of it.
const NO_CAP: u32 = 0;

#[test]
fn a_kernel_that_refuses_caps_works_without_them() {
    // Every kernel refuses a multishot receive with MSG_WAITALL, as kernels before Linux 6.17
    // refuse one with a cap.
    fn refused_here(handle: &Handle) -> Entry {
        let whole = opcode::Recv::new(
            io_uring::types::Fd(handle.number()),
            std::ptr::null_mut(),
            0,
        );
        let mut entry = whole
            .flags(libc::MSG_WAITALL)
            .buf_group(request::BUFFER_GROUP);
        entry = entry.ioprio(2);
        entry.build().flags(io_uring::squeue::Flags::BUFFER_SELECT)
    }
    if is_here() {
        let listener = Listener::open().expect("a listener");
        assert_eq!(try_with(&listener, refused_here), WITHOUT_CAPS);
    }
}

#[test]
fn a_kernel_that_ignores_caps_works_without_them() {
    if is_here() {
        let listener = Listener::open().expect("a listener");
        let uncapped = |handle: &Handle| request::receive_many(handle, NO_CAP, false);
        assert_eq!(try_with(&listener, uncapped), WITHOUT_CAPS);
    }
}

#[test]
fn a_kernel_that_streams_no_receives_works_without_them() {
    if is_here() {
        let listener = Listener::open().expect("a listener");
        let one_shot = |handle: &Handle| request::receive(handle, 16, false);
        assert_eq!(try_with(&listener, one_shot), WITHOUT_CAPS);
    }
}

#[test]
fn the_trial_works_on_each_kind_of_socket_and_twice() {
    if is_here() {
        for listener in [Listener::unix(), Listener::loopback()] {
            let listener = listener.expect("a listener");
            let first = try_with(&listener, capped);
            assert!(first.is_some(), "it works on {:?}", listener.address);
            assert_eq!(try_with(&listener, capped), first);
        }
    }
}

#[test]
fn the_trial_leaves_nothing_with_the_kernel() {
    if is_here() {
        let listener = Listener::open().expect("a listener");
        let trial = Trial::new(capped).expect("a ring");
        let abilities = trial.operations(&listener).expect("no error of the system");
        assert!(abilities.is_some(), "it works here");
        // What it had left would end with the connection.
        trial.ask(opcode::Nop::new().build(), NOTHING);
        trial.end_of(NOTHING).expect("a request ends");
        let left = lock(&trial.ended);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// There are enough buffers that a lack of them is not mistaken for a kernel that has no caps.
#[test]
fn a_kernel_that_knows_caps_is_recognized() {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("this is Linux");
    let mut numbers = release.split('.').map_while(|it| it.parse::<u32>().ok());
    let version = (
        numbers.next().expect("a number"),
        numbers.next().unwrap_or(0),
    );
    if is_here() && version >= (6, 18) {
        let listener = Listener::open().expect("a listener");
        let caps_streams = true;
        assert_eq!(
            try_with(&listener, capped),
            Some(Abilities { caps_streams })
        );
    }
}

#[test]
fn a_list_of_no_processors_is_known() {
    assert!(is_empty_list("\n") && is_empty_list("(null)\n"));
    assert!(!is_empty_list("1-3\n"));
}
