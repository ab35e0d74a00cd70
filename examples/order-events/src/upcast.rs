//! Schema evolution: old data is lifted, version by version, until it is what today's code knows.
//! Each step knows two neighbours only, so a new version costs one function and one row. Events
//! are never rewritten where they are stored.
//!
//! Newer versions than this code's are refused: to guess would be to lose. Deploy readers first.

use serde_json::{Value, json};

use crate::envelope::Envelope;
use crate::events::Event;
use crate::failure::Rejected;

/// Data of one version becomes data of the next.
type Step = fn(&mut Value);

/// All steps: type, version that it lifts, how.
const STEPS: &[(&str, u32, Step)] = &[
    ("OrderPlaced", 1, order_placed_1_to_2),
    ("OrderPlaced", 2, order_placed_2_to_3),
];

/// Version 1 knew single items only, and called the price of one its amount.
fn order_placed_1_to_2(data: &mut Value) {
    if let Some(fields) = data.as_object_mut() {
        let amount_cents = fields.remove("amount_cents");
        fields.insert("unit_cents".to_owned(), amount_cents.unwrap_or_default());
        fields.insert("quantity".to_owned(), json!(1));
    }
}

/// Until version 2 all prices were in euros.
fn order_placed_2_to_3(data: &mut Value) {
    if let Some(fields) = data.as_object_mut() {
        fields.insert("currency".to_owned(), json!("EUR"));
    }
}

/// The event in an envelope, in today's version; none if it is of another type.
pub fn read<E: Event>(envelope: &Envelope) -> Result<Option<E>, Rejected> {
    if envelope.event_type != E::TYPE {
        return Ok(None);
    }
    let mut data = envelope.data.clone();
    if envelope.version > E::VERSION {
        return Err(unknown_version::<E>(envelope.version));
    }
    for version in envelope.version..E::VERSION {
        let step = STEPS
            .iter()
            .find(|(event_type, from, _)| *event_type == E::TYPE && *from == version);
        let (_, _, step) = step.ok_or_else(|| unknown_version::<E>(envelope.version))?;
        step(&mut data);
    }
    let event = serde_json::from_value(data).map_err(|error| {
        let message = format!("{} version {}: {error}", E::TYPE, envelope.version);
        Rejected::new("MalformedData", message)
    })?;
    Ok(Some(event))
}

fn unknown_version<E: Event>(version: u32) -> Rejected {
    let (event_type, newest) = (E::TYPE, E::VERSION);
    Rejected::new(
        "UnknownVersion",
        format!("{event_type} version {version}: versions 1 to {newest} are known"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{OrderPlaced, StockTaken};
    use uuid::Uuid;

    fn order() -> OrderPlaced {
        OrderPlaced {
            order_id: Uuid::from_u128(7),
            customer: "ada".to_owned(),
            number: 4,
            item: "lamp".to_owned(),
            quantity: 1,
            unit_cents: 1999,
            currency: "EUR".to_owned(),
        }
    }

    fn read_version(version: u32, data: Value) -> Result<Option<OrderPlaced>, Rejected> {
        read(&Envelope::first("OrderPlaced", version, data))
    }

    #[test]
    fn every_version_is_read_as_todays() {
        let id = Uuid::from_u128(7);
        let first = json!({"order_id": id, "customer": "ada", "number": 4, "item": "lamp",
            "amount_cents": 1999});
        let second = json!({"order_id": id, "customer": "ada", "number": 4, "item": "lamp",
            "quantity": 1, "unit_cents": 1999});
        let third = serde_json::to_value(order()).unwrap();
        for (version, data) in [(1, first), (2, second), (3, third)] {
            assert_eq!(read_version(version, data), Ok(Some(order())), "{version}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_kind() {
        let today = serde_json::to_value(order()).unwrap();
        for version in [0, 4, u32::MAX] {
            let refused = read_version(version, today.clone()).unwrap_err();
            assert_eq!(refused.class, "UnknownVersion", "{version}");
        }
        for data in [json!(null), json!([1]), json!({"customer": "ada"})] {
            let refused = read_version(1, data).unwrap_err();
            assert_eq!(refused.class, "MalformedData");
        }
    }

    #[test]
    fn an_event_is_not_read_as_one_of_another_type() {
        let data = json!({"order_id": Uuid::from_u128(7), "quantity": 1});
        let taken = Envelope::first(StockTaken::TYPE, StockTaken::VERSION, data);
        assert!(read::<StockTaken>(&taken).unwrap().is_some());
        assert!(read::<OrderPlaced>(&taken).unwrap().is_none());
    }
}
