//! The payment: takes the money of every order placed, and says so. The account is this database.
//! With a payment provider the effect would be outside of the transaction, as in `mail.rs`; give
//! the provider the event's id as its idempotency key.

use rusqlite::{Transaction, params};

use crate::consumer::{Handler, Refusal};
use crate::envelope::Envelope;
use crate::events::{Event, OrderPlaced, PaymentTaken};
use crate::{inbox, outbox, upcast};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS payments (
    order_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    cents INTEGER NOT NULL,
    currency TEXT NOT NULL
);
";

/// The service.
pub struct Payment;

impl Handler for Payment {
    const NAME: &'static str = "payment";
    const SCHEMAS: &'static [&'static str] = &[inbox::SCHEMA, outbox::SCHEMA, TABLES];
    const READS: &'static [&'static str] = &[OrderPlaced::TYPE];

    fn apply(&self, transaction: &Transaction<'_>, event: &Envelope) -> Result<(), Refusal> {
        let order: OrderPlaced = upcast::read(event)?;
        let cents = order.total_cents();
        transaction.execute(
            "INSERT INTO payments (order_id, customer, cents, currency) VALUES (?1, ?2, ?3, ?4)",
            params![
                order.order_id.to_string(),
                order.customer,
                cents,
                order.currency
            ],
        )?;
        let taken = PaymentTaken {
            order_id: order.order_id,
            cents,
        };
        outbox::put(transaction, &order.customer, &event.followed_by(&taken))?;
        Ok(())
    }
}
