//! The servers on monoio with its io_uring driver, as its documentation shows them: a task a
//! connection, and one buffer that goes into each call and comes back.

#![forbid(unsafe_code)]

use std::io;

use bench_common::Work;
use monoio::io::{AsyncReadRent as _, AsyncWriteRentExt as _};
use monoio::net::{TcpListener, TcpStream};

fn main() -> io::Result<()> {
    let work = bench_common::start();
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .with_entries(4096)
        .build()?;
    runtime.block_on(serve(work))
}

async fn serve(work: Work) -> io::Result<()> {
    let listener = TcpListener::from_std(bench_common::listener(false))?;
    loop {
        let (stream, _) = listener.accept().await?;
        match work {
            Work::Accept => drop(stream),
            Work::Source => drop(monoio::spawn(source(stream))),
            Work::Echo | Work::Sink => drop(monoio::spawn(receive(stream, work))),
        }
    }
}

async fn receive(mut stream: TcpStream, work: Work) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(work.read_bytes());
    let mut result;
    loop {
        (result, buffer) = stream.read(buffer).await;
        if result? == 0 {
            return Ok(());
        }
        if work == Work::Echo {
            (result, buffer) = stream.write_all(buffer).await;
            result?;
        }
        buffer.clear();
    }
}

async fn source(mut stream: TcpStream) -> io::Result<()> {
    let pattern = bench_common::Pattern::default();
    let mut buffer = pattern.of_source(0).to_vec();
    let mut result;
    loop {
        (result, buffer) = stream.write_all(buffer).await;
        result?;
    }
}
