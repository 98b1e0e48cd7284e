//! The servers on compio with its io_uring driver, as its documentation shows them: a task a
//! connection, and one buffer that goes into each call and comes back.

#![forbid(unsafe_code)]

use std::io;

use bench_common::{Pattern, Work};
use compio::BufResult;
use compio::io::{AsyncRead as _, AsyncWriteExt as _};
use compio::net::{TcpListener, TcpStream};
use compio::runtime::Runtime;

fn main() -> io::Result<()> {
    let work = bench_common::start();
    Runtime::new()?.block_on(serve(work))
}

async fn serve(work: Work) -> io::Result<()> {
    let listener = TcpListener::from_std(bench_common::listener(false))?;
    loop {
        let (stream, _) = listener.accept().await?;
        match work {
            Work::Accept => drop(stream),
            Work::Source => compio::runtime::spawn(source(stream)).detach(),
            Work::Echo | Work::Sink => compio::runtime::spawn(receive(stream, work)).detach(),
        }
    }
}

async fn receive(mut stream: TcpStream, work: Work) -> io::Result<()> {
    let mut buffer: Vec<u8> = Vec::with_capacity(work.read_bytes());
    loop {
        let BufResult(result, filled) = stream.read(buffer).await;
        buffer = filled;
        if result? == 0 {
            return Ok(());
        }
        if work == Work::Echo {
            let BufResult(result, sent) = stream.write_all(buffer).await;
            buffer = sent;
            result?;
        }
        buffer.clear();
    }
}

async fn source(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Pattern::default().of_source(0).to_vec();
    loop {
        let BufResult(result, sent) = stream.write_all(buffer).await;
        buffer = sent;
        result?;
    }
}
