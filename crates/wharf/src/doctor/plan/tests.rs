//! Simulated machines, and the conclusions about them.

use super::*;
use crate::sys::facts::{Backlog, Cgroup, ConnectionMemory, Memory, Rights, TcpMemory};

const GIB: u64 = 1 << 30;

/// A freshly installed machine.
fn fresh_linux() -> Facts {
    Facts {
        system: "Linux".into(),
        family: Family::Linux,
        processors: 4,
        open_files: OpenFiles {
            soft: Some(1024),
            hard: Some(20_000),
            process_max: Some(1 << 20),
            system_max: Some(2_466_177),
            system_used: Some(1_200),
        },
        source_ports: Some(SourcePorts {
            first: 32_768,
            last: 60_999,
        }),
        reserved_ports: Some("8080".to_owned()),
        backlog: Backlog {
            accept_max: Some(4096),
            handshakes_max: Some(2048),
        },
        tcp_memory: Some(TcpMemory {
            low_pages: 287_901,
            pressure_pages: 383_868,
            max_pages: 575_802,
            used_pages: 3,
        }),
        connection_tracking: None,
        memory: Memory {
            total_bytes: 24 * GIB,
            available_bytes: 22 * GIB,
            limited_by_container: false,
        },
        cgroup: Cgroup::default(),
        connection: ConnectionMemory {
            kernel_bytes: 3_872,
            program_bytes: 128,
            measured_with: 4_000,
        },
        drivers: Vec::new(),
        io_uring_disabled: Some(0),
        congestion_control: None,
        rights: Rights {
            is_root: false,
            raises_hard_limit: true,
            writes_settings: true,
        },
    }
}

#[test]
fn a_fresh_machine_is_bound_by_open_files() {
    let all = capacities(&fresh_linux());
    assert_eq!(
        all.server_process,
        Capacity {
            connections: 20_000 - FILES_BESIDES,
            bound_by: Limit::OpenFiles
        }
    );
    assert_eq!(all.server.bound_by, Limit::OpenFilesOfSystem);
    assert_eq!(all.both_ends.connections, all.server.connections / 2);
    assert_eq!(all.per_source_address, Some(28_232));
}

#[test]
fn a_million_needs_these_lines_and_no_others() {
    let plan = plan(&fresh_linux(), 1_000_000);
    assert!(!plan.now.server_process);
    assert_eq!(plan.now.server_processes, Some(51));
    assert_eq!(plan.now.source_addresses, Some(36));
    assert_eq!(
        plan.lines,
        [
            "sudo prlimit --pid $$ --nofile=1100000:1100000",
            "sudo sysctl -w net.ipv4.tcp_max_syn_backlog=4096",
            "sudo sysctl -w net.ipv4.ip_local_reserved_ports=\"8080,10101,10102\"",
            "sudo sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
            "sudo sysctl -w net.ipv4.tcp_mem=\"1000000 1333332 2000000\"",
        ]
        .map(str::to_owned)
        .into_iter()
        .collect::<Vec<_>>()
    );
}

/// On every machine with enough memory the commands reach the goal. If nothing has to change, there
/// are no commands.
#[test]
fn what_the_lines_promise_holds_after_them() {
    for family in [
        Family::Linux,
        Family::Macos,
        Family::Freebsd,
        Family::Windows,
    ] {
        for goal in [1, 20_000, 100_000, 1_000_000, 2_000_000] {
            let mut facts = fresh_linux();
            facts.family = family;
            if family == Family::Windows {
                facts.open_files.hard = Some(1 << 24);
            }
            facts.connection_tracking = Some(ConnectionTracking {
                used: 100,
                max: 65_536,
                tracks_loopback: Some(true),
            });
            let planned = plan(&facts, goal);
            assert!(planned.after.server_process, "{family:?} {planned:?}");
            assert_eq!(planned.after.server_processes, Some(1));
            let mut changed = facts.clone();
            for change in changes(&facts, goal) {
                change.apply(&mut changed);
            }
            assert_eq!(changes(&changed, goal), [], "{family:?} {goal}");
        }
    }
}

#[test]
fn what_memory_forbids_no_line_allows() {
    let mut facts = fresh_linux();
    facts.memory.available_bytes = GIB;
    let plan = plan(&facts, 1_000_000);
    assert!(!plan.after.server_process);
    assert_eq!(plan.after.server_processes, None);
    let bound = plan.after.capacities.server;
    assert_eq!(bound.bound_by, Limit::Memory);
    assert_eq!(bound.connections, GIB / 10 * 9 / 4_000);
}

#[test]
fn the_hard_limit_may_not_pass_what_the_system_allows_a_process() {
    let mut facts = fresh_linux();
    facts.open_files.process_max = Some(100_000);
    facts.open_files.hard = Some(u64::MAX);
    let plan = plan(&facts, 200_000);
    assert_eq!(
        plan.now.capacities.server_process.connections,
        100_000 - FILES_BESIDES
    );
    assert_eq!(plan.lines[0], "sudo sysctl -w fs.nr_open=210000");
}

#[test]
fn commands_for_the_host_of_a_container_say_so() {
    let mut facts = fresh_linux();
    facts.open_files.system_max = Some(500_000);
    facts.rights = Rights {
        is_root: true,
        raises_hard_limit: false,
        writes_settings: false,
    };
    let lines = plan(&facts, 1_000_000).lines;
    assert!(lines[0].starts_with("sysctl -w fs.file-max="), "{lines:?}");
    assert!(lines[0].contains("on the host"), "{lines:?}");
    assert!(lines[1].starts_with("docker run --ulimit"), "{lines:?}");
}

#[test]
fn windows_needs_ports_only() {
    let mut facts = fresh_linux();
    facts.family = Family::Windows;
    facts.open_files = OpenFiles {
        hard: Some(1 << 24),
        ..OpenFiles::default()
    };
    facts.backlog = Backlog::default();
    facts.tcp_memory = None;
    facts.source_ports = Some(SourcePorts {
        first: 49_152,
        last: 65_535,
    });
    let plan = plan(&facts, 100_000);
    let [line] = &plan.lines[..] else {
        panic!("{plan:?}");
    };
    assert!(line.contains("start=1024 num=64512"), "{line}");
    assert_eq!(plan.now.source_addresses, Some(7));
    assert_eq!(plan.after.source_addresses, Some(2));
}

#[test]
fn the_lines_of_each_system_name_its_settings() {
    for (family, expected) in [
        (Family::Macos, "kern.maxfilesperproc="),
        (Family::Freebsd, "kern.ipc.soacceptqueue="),
    ] {
        let mut facts = fresh_linux();
        facts.family = family;
        facts.open_files.process_max = Some(10_000);
        facts.backlog.accept_max = Some(128);
        facts.tcp_memory = None;
        let lines = plan(&facts, 50_000).lines;
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{lines:?}"
        );
        assert!(
            lines.iter().any(|line| line.contains("ulimit -n")),
            "{lines:?}"
        );
    }
}

#[test]
fn a_firewall_that_tracks_nothing_bounds_nothing() {
    let mut facts = fresh_linux();
    for (tracks_loopback, bound) in [(None, true), (Some(true), true), (Some(false), false)] {
        facts.connection_tracking = Some(ConnectionTracking {
            used: 0,
            max: 65_536,
            tracks_loopback,
        });
        let bound_by = capacities(&facts).server.bound_by;
        assert_eq!(
            bound_by == Limit::ConnectionTracking,
            bound,
            "{tracks_loopback:?}"
        );
    }
}
