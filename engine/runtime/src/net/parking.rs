//! Reading from a connection that may be idle for long.
//!
//! A pending read pins a buffer: 16 KiB for every idle connection. Waiting for readiness pins none but costs another
//! operation per read. So a read starts directly and is cancelled when nothing came for a while; the cancelled
//! operation is awaited, because it may have received bytes in the meantime.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use monoio::io::{CancelableAsyncReadRent, Canceller};

use super::operation::Append;
use super::tcp::{TcpStream, is_cancelled};
use crate::buffer::Buf;
use crate::core::Core;
use crate::timers::Deadline;

/// What a stream keeps for its next parking read.
pub(super) struct Parking {
    idle: Deadline,
    canceller: Cell<Option<Canceller>>,
}

pub(super) async fn read(stream: &TcpStream, core: &Core, idle_after: Duration) -> io::Result<Buf> {
    let parking = stream
        .parking
        .get_or_init(|| Box::new(Parking { idle: core.timers().deadline(), canceller: Cell::new(None) }));
    loop {
        match read_once(stream, core, parking, idle_after).await {
            (Ok(_), buf) => return Ok(buf),
            (Err(error), buf) if is_cancelled(&error) => drop(buf),
            (Err(error), _) => return Err(error),
        }
        stream.readable().await?;
        // The bytes are there: reading them directly saves a turn of the loop.
        let mut buf = core.buffers().take();
        match stream.try_read(&mut buf) {
            Ok(_) => return Ok(buf),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// One read, cancelled (ECANCELED) after `idle_after`.
async fn read_once(
    stream: &TcpStream,
    core: &Core,
    parking: &Parking,
    idle_after: Duration,
) -> (io::Result<usize>, Buf) {
    parking.idle.arm(core.now() + idle_after);
    let mut canceller = Some(parking.canceller.take().unwrap_or_default());
    let handle = canceller.get_or_insert_default().handle();
    let mut read = pin!(stream.io().cancelable_read(Append(core.buffers().take()), handle));
    let (result, append) = poll_fn(|cx| {
        if let Poll::Ready(done) = read.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        if canceller.is_some() && parking.idle.poll_expired(cx).is_ready() {
            // The canceller is not kept: a parked connection should hold as little memory as it can.
            drop(canceller.take().map(Canceller::cancel));
        }
        Poll::Pending
    })
    .await;
    parking.idle.disarm();
    parking.canceller.set(canceller);
    (result, append.0)
}
