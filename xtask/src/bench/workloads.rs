//! The workloads.

/// One workload: what the server does, and what the client sends.
#[derive(Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The command-line word for the server and the client.
    pub(super) work: &'static str,
    pub(super) connections: u32,
    pub(super) depth: u32,
    pub(super) bytes: u32,
    pub(super) idle: u32,
    pub(super) unit: Unit,
}

/// What is counted as one operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    Echo,
    Connection,
    /// A transferred block of 64 KiB.
    Block,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Unit::Echo => "echo",
            Unit::Connection => "connection",
            Unit::Block => "64 KiB",
        }
    }

    /// The unit of the rate.
    pub(super) fn many(self) -> &'static str {
        match self {
            Unit::Echo => "echoes a second",
            Unit::Connection => "connections a second",
            Unit::Block => "MB/s",
        }
    }
}

const fn echo(name: &'static str, about: &'static str, connections: u32) -> Workload {
    Workload {
        name,
        about,
        work: "echo",
        connections,
        depth: 1,
        bytes: 64,
        idle: 0,
        unit: Unit::Echo,
    }
}

const fn bulk(name: &'static str, about: &'static str, work: &'static str) -> Workload {
    Workload {
        name,
        about,
        work,
        connections: 8,
        depth: 1,
        bytes: 65_536,
        idle: 0,
        unit: Unit::Block,
    }
}

pub(super) static WORKLOADS: [Workload; 8] = [
    echo("echo-1", "Echo of 64 bytes, 1 connection", 1),
    echo("echo-64", "Echo of 64 bytes, 64 connections", 64),
    echo("echo-1000", "Echo of 64 bytes, 1,000 connections", 1000),
    Workload {
        depth: 16,
        ..echo(
            "echo-64x16",
            "Echo of 64 bytes, 64 connections, 16 deep",
            64,
        )
    },
    Workload {
        idle: 10_000,
        ..echo(
            "echo-idle",
            "Echo of 64 bytes, 64 connections and 10,000 idle ones",
            64,
        )
    },
    Workload {
        name: "accept",
        about: "Accept and close, 64 connects under way at once",
        work: "accept",
        connections: 64,
        depth: 1,
        bytes: 1,
        idle: 0,
        unit: Unit::Connection,
    },
    bulk(
        "sink",
        "Bulk into the server, 8 connections, writes of 64 KiB",
        "sink",
    ),
    bulk(
        "source",
        "Bulk out of the server, 8 connections, writes of 64 KiB",
        "source",
    ),
];
