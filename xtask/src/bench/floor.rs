//! The floor: the least that any target on this machine has to do. The same bytes over loopback TCP, from and to a
//! memory of the same size, by a server without protocol, in a process of its own so that its CPU is counted alike.

use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::Result;

use super::lean::write_all;
use super::wire::{BHS, be32};

/// Bytes of one read.
const BUFFER: usize = 512 << 10;

/// Serves for ever; says its port first.
pub(crate) fn serve(span: u64) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    // Not zeros, which the kernel would take from one page.
    let memory: Arc<[u8]> = (0..span).map(|n| (n >> 12 | 1) as u8).collect();
    println!("listening on {}", listener.local_addr()?);
    std::io::stdout().flush()?;
    for socket in listener.incoming() {
        let (socket, memory) = (socket?, memory.clone());
        // The client's end ends it.
        std::thread::spawn(move || serve_one(socket, &memory));
    }
    Ok(())
}

fn serve_one(mut socket: TcpStream, memory: &[u8]) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    // Output is received and dropped: into the buffer is where it must be copied in any case.
    let (mut have, mut skip, mut late) = (0, 0, false);
    let head = [0; BHS];
    loop {
        let got = socket.read(&mut buffer[have..])?;
        if got == 0 {
            return Ok(());
        }
        have += got;
        let mut slices = Vec::with_capacity(256);
        let mut at = 0;
        loop {
            let step = usize::min(skip, have - at);
            (at, skip) = (at + step, skip - step);
            if skip > 0 {
                break;
            }
            if std::mem::take(&mut late) {
                slices.push(IoSlice::new(&head));
            }
            if have - at < BHS {
                break;
            }
            let request = &buffer[at..at + BHS];
            let from = u64::from_be_bytes(request[..8].try_into()?) as usize;
            let (input, output) = (be32(request, 8) as usize, be32(request, 12) as usize);
            at += BHS;
            if output > 0 {
                // The answer goes out when all of it is in.
                (skip, late) = (output, true);
                continue;
            }
            slices.push(IoSlice::new(&head));
            slices.push(IoSlice::new(&memory[from..from + input]));
        }
        write_all(&socket, &mut slices)?;
        buffer.copy_within(at..have, 0);
        have -= at;
    }
}
