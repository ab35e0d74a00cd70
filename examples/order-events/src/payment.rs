//! The payment: takes the money of every order placed, and says so. The account is this database.
//! With a payment provider the effect would be outside of the transaction, as in `mail.rs`; give
//! the provider the event's id as its idempotency key.

use rusqlite::{Transaction, params};

use crate::consumer::Handler;
use crate::envelope::Envelope;
use crate::events::{OrderPlaced, PaymentTaken};
use crate::failure::Failure;
use crate::{inbox, outbox};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS payments (
    order_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    cents BIGINT NOT NULL,
    currency TEXT NOT NULL
);
";

pub struct Payment;

impl Handler for Payment {
    const NAME: &'static str = "payment";
    const SCHEMAS: &'static [&'static str] = &[inbox::SCHEMA, outbox::SCHEMA, TABLES];
    type Event = OrderPlaced;

    fn apply(
        &self,
        transaction: &Transaction<'_>,
        envelope: &Envelope,
        order: &OrderPlaced,
    ) -> Result<(), Failure> {
        let cents = order.total_cents()?;
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
        outbox::put(transaction, &order.customer, &envelope.followed_by(&taken))
    }
}
