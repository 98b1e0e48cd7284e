//! The servers on async-io, as its documentation shows them: `Async` around a socket of the
//! standard library, a task a connection on a local executor.

#![forbid(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream};

use async_executor::LocalExecutor;
use async_io::Async;
use bench_common::Work;
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let executor = LocalExecutor::new();
    async_io::block_on(executor.run(serve(&executor, work)))
}

async fn serve(executor: &LocalExecutor<'_>, work: Work) -> io::Result<()> {
    let listener = Async::<TcpListener>::new_nonblocking(bench_common::listener(true))?;
    loop {
        let (stream, _) = listener.accept().await?;
        match work {
            Work::Accept => drop(stream),
            Work::Source => executor.spawn(source(stream)).detach(),
            Work::Echo | Work::Sink => executor.spawn(receive(stream, work)).detach(),
        }
    }
}

async fn receive(mut stream: Async<TcpStream>, work: Work) -> io::Result<()> {
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

async fn source(mut stream: Async<TcpStream>) -> io::Result<()> {
    let pattern = bench_common::Pattern::default();
    loop {
        stream.write_all(pattern.of_source(0)).await?;
    }
}
