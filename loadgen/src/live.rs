//! The sale as it runs: a line that is rewritten on a terminal, a plain line every second where
//! there is none.

use std::io::{IsTerminal, Write};

use crate::direct::DirectSecond;
use crate::sale::Second;

/// Where progress is shown.
pub struct Live {
    out: Box<dyn Write>,
    terminal: bool,
}

impl Live {
    /// Shows progress on standard error, which leaves standard output to the report.
    pub fn stderr() -> Self {
        let out = std::io::stderr();
        Self {
            terminal: out.is_terminal(),
            out: Box::new(out),
        }
    }

    /// Shows one second of the sale.
    pub fn sale(&mut self, second: &Second) {
        self.line(&sale_line(second));
    }

    /// Shows one second of the load without a broker.
    pub fn direct(&mut self, second: &DirectSecond) {
        self.line(&direct_line(second));
    }

    /// Leaves the line that is being rewritten.
    pub fn end(&mut self) {
        if self.terminal {
            let _ = writeln!(self.out);
        }
    }

    /// Shows a line of progress.
    pub fn line(&mut self, text: &str) {
        // Progress that cannot be shown is no reason to stop.
        let _ = match self.terminal {
            true => write!(self.out, "\r\x1b[2K{text}"),
            false => writeln!(self.out, "{text}"),
        };
        let _ = self.out.flush();
    }
}

fn sale_line(second: &Second) -> String {
    let empty_in = match second.drain_s {
        Some(seconds) => format!("{seconds:.1} s"),
        None => "never".to_owned(),
    };
    format!(
        "{:>4} s  produced {:>6}/s  acked {:>6}/s  written {:>6}/s  backlog {:>7}  lag {:>5.1} s  \
         empty in {empty_in:>7}  buffer {:>6}  paused {:>3}  ack p99 {:>8.1} ms",
        second.at_s,
        second.produced,
        second.acked,
        second.written,
        second.backlog,
        second.lag_s,
        second.buffer,
        second.paused,
        second.ack_p99_us as f64 / 1e3,
    )
}

fn direct_line(second: &DirectSecond) -> String {
    format!(
        "{:>4} s  no broker  requested {:>6}/s  written {:>6}/s  timed out {:>6}/s  waiting {:>6}",
        second.at_s, second.requested, second.written, second.timed_out, second.waiting,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Screen(Rc<RefCell<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(terminal: bool) -> String {
        let screen = Screen::default();
        let mut live = Live {
            out: Box::new(screen.clone()),
            terminal,
        };
        let second = Second {
            at_s: 3,
            produced: 8_333,
            ack_p99_us: 12_300,
            ..Second::default()
        };
        live.sale(&second);
        live.sale(&Second {
            at_s: 4,
            drain_s: Some(40.0),
            ..second
        });
        live.end();
        let bytes = screen.0.borrow().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn without_a_terminal_every_second_is_a_line() {
        let shown = shown(false);
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 2);
        for word in [
            "3 s",
            "produced   8333/s",
            "empty in   never",
            "ack p99     12.3 ms",
        ] {
            assert!(lines[0].contains(word), "{word} in {}", lines[0]);
        }
        assert!(lines[1].contains("empty in  40.0 s"), "{}", lines[1]);
        assert!(!shown.contains('\x1b'));
    }

    #[test]
    fn on_a_terminal_one_line_is_rewritten() {
        let shown = shown(true);
        assert_eq!(shown.lines().count(), 1);
        assert_eq!(shown.matches("\r\x1b[2K").count(), 2);
    }
}
