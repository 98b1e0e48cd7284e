//! Tests that do not run on Windows: each file that is left out there is ignored by name, with the
//! reason.

macro_rules! absent {
    ($($name:ident: $reason:literal,)*) => {
        $(
            #[test]
            #[ignore = $reason]
            fn $name() {}
        )*
    };
}

absent! {
    backlog: "Windows refuses what a full backlog has no room for",
    confined: "control groups and limits of a user are Linux's",
    deaths: "several processes share an address on Linux only, and one is killed by a signal",
    ends_of_bench: "they are looked for in /proc, after a signal",
    limit_of_descriptors: "Windows has no limit of descriptors",
    paths: "there are no Unix sockets in the Windows build",
    peers_behind_a_full_window: "only Linux has TCP_USER_TIMEOUT, which such a peer needs",
    readme: "its commands are those of a Unix shell",
    replaced: "Windows does not let the file of a program that runs be removed",
    resident_bytes: "the memory of another process is read from /proc",
    words_that_are_not_utf_8: "Unix passes any bytes, Windows does not",
}
