//! The mail: an effect that no transaction can take back. It is sent first and noted after; a crash
//! between the two sends it again. That cannot be avoided, only chosen: noting first would lose
//! mails instead. So every mail bears the event's id as its `Message-ID`, and whoever receives two
//! with the same id keeps one.
//!
//! The mail server of this example is a file that is only appended to, `mails.txt`, so that one can
//! see what was sent twice.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use crate::consumer::Handler;
use crate::envelope::Envelope;
use crate::events::OrderPlaced;
use crate::failure::Failure;
use crate::inbox;

pub struct Mail {
    server: PathBuf,
}

impl Mail {
    /// With its mail server.
    pub fn new(dir: &Path) -> Self {
        Self {
            server: server(dir),
        }
    }
}

/// The file that stands for a mail server.
pub fn server(dir: &Path) -> PathBuf {
    dir.join("mails.txt")
}

impl Handler for Mail {
    const NAME: &'static str = "mail";
    const SCHEMAS: &'static [&'static str] = &[inbox::SCHEMA];
    type Event = OrderPlaced;

    fn apply(
        &self,
        _: &Transaction<'_>,
        envelope: &Envelope,
        order: &OrderPlaced,
    ) -> Result<(), Failure> {
        let mail = format!(
            "Message-ID: <{}@shop.example> To: {} Subject: your order of {} {}\n",
            envelope.id, order.customer, order.quantity, order.item
        );
        let mut server = OpenOptions::new();
        let sent = server
            .create(true)
            .append(true)
            .open(&self.server)
            .and_then(|mut server| {
                server.write_all(mail.as_bytes())?;
                server.sync_data()
            });
        sent.map_err(|error| {
            Failure::new(format!(
                "the mail server {} refuses: {error}",
                self.server.display()
            ))
        })
    }
}
