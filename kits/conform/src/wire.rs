//! One TCP connection that carries PDUs.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::pdu::{BHS_LEN, Pdu, at};
use crate::tape::Tape;
use crate::verdict::{Failure, Stop, error};

/// What came, or that nothing did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// A whole PDU whose digests were right.
    Pdu(Pdu),
    /// The peer closed or reset the connection.
    Closed,
    /// Nothing for as long as was waited.
    Silence,
}

impl Got {
    /// For messages.
    pub(crate) fn title(&self) -> String {
        match self {
            Self::Pdu(pdu) => pdu.title(),
            Self::Closed => "the connection was closed".into(),
            Self::Silence => "nothing".into(),
        }
    }

    /// The failure of a rule that demanded something else.
    pub(crate) fn wrong<T>(&self, rule: &str, expected: impl Into<String>) -> Result<T, Stop> {
        let dump = match self {
            Self::Pdu(pdu) => Some(pdu.dump()),
            _ => None,
        };
        Err(Stop::Fail(Failure { rule: rule.into(), expected: expected.into(), seen: self.title(), dump }))
    }
}

/// A connection and its digests. All waiting ends at the deadline of the case.
pub(crate) struct Wire {
    stream: TcpStream,
    tape: Tape,
    number: usize,
    deadline: Instant,
    buffer: Vec<u8>,
    closed: bool,
    /// Header digests are on, both ways.
    pub header_digest: bool,
    /// Data digests are on, both ways.
    pub data_digest: bool,
}

impl Wire {
    /// Takes a connected socket.
    ///
    /// # Errors
    ///
    /// The socket does not know its addresses any more.
    pub(crate) fn new(
        stream: TcpStream,
        we_connected: bool,
        tape: Tape,
        deadline: Instant,
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        let number = tape.open(stream.local_addr()?, stream.peer_addr()?, we_connected);
        Ok(Self {
            stream,
            tape,
            number,
            deadline,
            buffer: Vec::new(),
            closed: false,
            header_digest: false,
            data_digest: false,
        })
    }

    /// Sends a PDU with right padding and digests.
    pub(crate) fn send(&mut self, pdu: &Pdu) {
        self.send_bytes(&pdu.wire(self.header_digest, self.data_digest));
    }

    /// Sends any bytes. That the peer has closed shows in the next [`recv`](Self::recv).
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        if self.stream.write_all(bytes).is_ok() {
            self.tape.data(self.number, true, bytes);
        }
    }

    /// Waits for a PDU, the end of the connection, or until `wait` is over.
    ///
    /// # Errors
    ///
    /// A digest is wrong, or the case's time is over.
    pub(crate) fn recv(&mut self, wait: Duration) -> Result<Got, Stop> {
        let until = Instant::now() + wait;
        loop {
            if let Some(pdu) = self.take()? {
                return Ok(Got::Pdu(pdu));
            }
            if self.closed {
                return Ok(Got::Closed);
            }
            let now = Instant::now();
            if now >= self.deadline {
                return error("the time limit of the case is over");
            }
            let left = until.min(self.deadline).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(Got::Silence);
            }
            self.fill(left)?;
        }
    }

    fn fill(&mut self, left: Duration) -> Result<(), Stop> {
        let mut chunk = [0; 64 << 10];
        let set = self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))));
        match set.and_then(|()| self.stream.read(&mut chunk)) {
            Ok(0) => self.ended(),
            Ok(n) => {
                self.tape.data(self.number, false, &chunk[..n]);
                self.buffer.extend_from_slice(&chunk[..n]);
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
            Err(e) if e.kind() == ErrorKind::Interrupted => (),
            Err(_) => self.ended(),
        }
        Ok(())
    }

    fn ended(&mut self) {
        self.closed = true;
        self.tape.close(self.number, false);
    }

    /// A whole PDU at the front of the buffer.
    fn take(&mut self) -> Result<Option<Pdu>, Stop> {
        let Some((bhs, _)) = self.buffer.split_first_chunk::<BHS_LEN>() else { return Ok(None) };
        let mut pdu = Pdu { bhs: *bhs, ahs: Vec::new(), data: Vec::new() };
        let ahs = usize::from(pdu.byte(at::AHS_LEN)) * 4;
        let (data, header) = (pdu.data_len(), BHS_LEN + ahs);
        let data_at = header + if self.header_digest { 4 } else { 0 };
        let data_end = data_at + data.next_multiple_of(4);
        let end = data_end + if self.data_digest && data > 0 { 4 } else { 0 };
        if self.buffer.len() < end {
            return Ok(None);
        }
        let whole: Vec<u8> = self.buffer.drain(..end).collect();
        pdu.ahs = whole[BHS_LEN..header].to_vec();
        pdu.data = whole[data_at..data_at + data].to_vec();
        let digest = |of: &[u8], at: usize, what: &str| {
            let right = crc32c::crc32c(of).to_le_bytes();
            if whole[at..at + 4] == right {
                return Ok(());
            }
            Err(Stop::Fail(Failure {
                rule: "7143-13.1-4".into(),
                expected: format!("{what} digest {right:02x?}"),
                seen: format!("{:02x?}", &whole[at..at + 4]),
                dump: Some(pdu.dump()),
            }))
        };
        if self.header_digest {
            digest(&whole[..header], header, "header")?;
        }
        if self.data_digest && data > 0 {
            digest(&whole[data_at..data_end], data_end, "data")?;
        }
        Ok(Some(pdu))
    }

    /// Closes both directions.
    pub(crate) fn close(&mut self) {
        if self.stream.shutdown(Shutdown::Both).is_ok() {
            self.tape.close(self.number, true);
        }
    }
}
