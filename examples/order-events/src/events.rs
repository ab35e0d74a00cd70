//! The events, each as today's code knows it. How older versions become these is in `upcast.rs`.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::Rejected;

/// The data of one type of event.
pub trait Event: Serialize + DeserializeOwned {
    /// Its name in the envelope.
    const TYPE: &'static str;
    /// The version that this code writes, and the newest it reads.
    const VERSION: u32;
}

/// A customer has placed an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderPlaced {
    pub order_id: Uuid,
    /// Who placed it; also the key of all events about the order, so that they stay in order.
    pub customer: String,
    /// The customer's so-maniest order, from 1.
    pub number: u64,
    /// What was ordered.
    pub item: String,
    /// How many of it. Since version 2.
    pub quantity: u32,
    /// The price of one, in hundredths of the currency. Version 1 called it `amount_cents`.
    pub unit_cents: u64,
    /// ISO 4217. Since version 3.
    pub currency: String,
}

impl OrderPlaced {
    /// What the whole order costs, in hundredths of the currency; rejected if it is more than a
    /// database's signed 64 bits can hold.
    pub fn total_cents(&self) -> Result<u64, Rejected> {
        let (quantity, unit_cents) = (self.quantity, self.unit_cents);
        let total = unit_cents.checked_mul(u64::from(quantity));
        total
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or_else(|| {
                let message = format!("{quantity} times {unit_cents} cents is too much");
                Rejected::new("AmountTooLarge", message)
            })
    }
}

/// The goods of an order have left the stock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StockTaken {
    pub order_id: Uuid,
    /// How many were taken.
    pub quantity: u32,
}

/// An order has been paid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PaymentTaken {
    pub order_id: Uuid,
    /// What was paid, in hundredths of the currency.
    pub cents: u64,
}

impl Event for OrderPlaced {
    const TYPE: &'static str = "OrderPlaced";
    const VERSION: u32 = 3;
}

impl Event for StockTaken {
    const TYPE: &'static str = "StockTaken";
    const VERSION: u32 = 1;
}

impl Event for PaymentTaken {
    const TYPE: &'static str = "PaymentTaken";
    const VERSION: u32 = 1;
}
