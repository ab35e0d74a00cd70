//! When requests are meant to leave: the arithmetic of an open loop, and a timer that is finer than
//! the runtime's milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The intended times of one connection's requests, of all that keep the rate together.
#[derive(Clone, Debug)]
pub struct Schedule {
    start: Instant,
    rate: u64,
    records_per_request: u64,
    next: u64,
    stride: u64,
}

impl Schedule {
    /// The `index`-th of `connections` that together send `rate` records per second from `start`
    /// on; requests go round the connections.
    pub fn new(
        start: Instant,
        rate: u64,
        records_per_request: u64,
        index: usize,
        connections: usize,
    ) -> Self {
        Self {
            start,
            rate,
            records_per_request,
            next: index as u64,
            stride: connections as u64,
        }
    }

    /// When the next request is meant to leave.
    pub fn due(&self) -> Instant {
        const NS_PER_S: u128 = 1_000_000_000;
        let records = u128::from(self.next) * u128::from(self.records_per_request);
        let ns = records * NS_PER_S / u128::from(self.rate);
        self.start + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
    }

    /// The next request has left.
    pub fn advance(&mut self) {
        self.next += self.stride;
    }
}

/// Waits for moments to a few microseconds.
pub struct Timer(AsyncFd<Fd>);

/// A timer of the kernel, as tokio wants it.
struct Fd(TimerFd);

impl AsRawFd for Fd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// A timer of the current runtime.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let fd = Fd(timer);
        // SAFETY: the AsyncFd owns the timer, whose one descriptor is open until it is dropped.
        let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Self(registered?))
    }

    /// Returns when `moment` is there.
    ///
    /// # Errors
    /// If the kernel refuses the timer, which it has no reason to do.
    pub async fn until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Expiration::OneShot(TimeSpec::from_duration(left));
            let timer = &self.0.get_ref().0;
            timer.set(once, TimerSetTimeFlags::empty())?;
            let mut ready = self.0.readable().await?;
            match timer.wait() {
                // The readiness was left over from an earlier moment.
                Ok(()) | Err(nix::errno::Errno::EAGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_keep_the_rate_together_and_without_drift() {
        let start = Instant::now();
        let mut moments = Vec::new();
        for index in 0..3 {
            let mut schedule = Schedule::new(start, 7_000, 10, index, 3);
            for _ in 0..700 {
                moments.push(schedule.due() - start);
                schedule.advance();
            }
        }
        moments.sort_unstable();
        for (number, moment) in moments.iter().enumerate() {
            let expected = Duration::from_nanos(number as u64 * 10 * 1_000_000_000 / 7_000);
            assert_eq!(*moment, expected, "request {number}");
        }
        assert_eq!(moments[700], Duration::from_secs(1));
    }

    #[test]
    fn a_timer_is_neither_early_nor_a_millisecond_late() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let timer = Timer::new().unwrap();
            let late = async || {
                let moment = Instant::now() + Duration::from_micros(1_300);
                timer.until(moment).await.unwrap();
                Instant::now()
                    .checked_duration_since(moment)
                    .expect("not early")
            };
            let mut lateness = Vec::new();
            for _ in 0..20 {
                lateness.push(late().await);
            }
            // Other work on the machine can delay some.
            assert!(
                lateness.iter().min() < Some(&Duration::from_micros(500)),
                "{lateness:?}"
            );
        });
    }
}
