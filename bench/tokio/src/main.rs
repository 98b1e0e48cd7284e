//! The servers on tokio, with the runtime of one thread, as its documentation shows them: a task a
//! connection, `read` and `write_all`.

#![forbid(unsafe_code)]

use std::io;

use bench_common::Work;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(work))
}

async fn serve(work: Work) -> io::Result<()> {
    let listener = TcpListener::from_std(bench_common::listener(true))?;
    loop {
        let (stream, _) = listener.accept().await?;
        match work {
            Work::Accept => drop(stream),
            Work::Source => drop(tokio::task::spawn_local(source(stream))),
            Work::Echo | Work::Sink => drop(tokio::task::spawn_local(receive(stream, work))),
        }
    }
}

async fn receive(mut stream: TcpStream, work: Work) -> io::Result<()> {
    let mut buffer = vec![0; work.read_bytes()];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        if work == Work::Echo {
            stream.write_all(&buffer[..count]).await?;
        }
    }
}

async fn source(mut stream: TcpStream) -> io::Result<()> {
    let pattern = bench_common::Pattern::default();
    loop {
        stream.write_all(pattern.of_source(0)).await?;
    }
}
