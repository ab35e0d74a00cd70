//! What one bad event does to the others: nothing. What a service can never handle becomes a dead
//! letter; what the broker will not keep stops the relay where it stands, with nothing behind it
//! published out of order and nothing before it published again.

use rdkafka::message::{Message, OwnedMessage};
use serde_json::{Value, json};

use crate::System;
use crate::client::{self, header, value};

fn envelope(event_type: &str, version: u32, data: Value) -> String {
    let (id, correlation_id) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let envelope = json!({"id": id, "type": event_type, "version": version, "time_ms": 0,
        "correlation_id": correlation_id, "causation_id": null, "data": data});
    envelope.to_string()
}

fn class(letter: &OwnedMessage) -> String {
    header(letter, "__connect.errors.exception.class.name")
}

/// What cannot be read goes to the dead letter topic with its reason; what is not known by type is
/// ignored; the events behind it are handled.
#[test]
fn unreadable_events_become_dead_letters_and_hold_nothing_up() {
    let system = System::start();
    system.run("place 3");
    system.run("relay shop --once");
    let values = [
        "no envelope".to_owned(),
        envelope("OrderPlaced", 9, json!({})),
        envelope("OrderPlaced", 1, json!({})),
        envelope("OrderGiftWrapped", 1, json!({})),
    ];
    client::publish(&system.bootstrap(), "orders", &values);
    system.run("place 3");
    system.run("relay shop --once");

    let stock = system.run("stock --once");
    assert!(
        stock.contains("stock: 6 applied, 0 seen before, 1 ignored, 3 dead letters"),
        "{stock}"
    );
    let mut letters = client::records(&system.bootstrap(), "orders-stock-dlt");
    letters.sort_by_key(class);
    let found: Vec<_> = letters
        .iter()
        .map(|letter| (class(letter), value(letter)))
        .collect();
    let expected = [
        ("MalformedData".to_owned(), values[2].as_str()),
        ("MalformedEnvelope".to_owned(), values[0].as_str()),
        ("UnknownVersion".to_owned(), values[1].as_str()),
    ];
    assert_eq!(found, expected);
    for letter in &letters {
        assert_eq!(header(letter, "__connect.errors.topic"), "orders");
        assert_eq!(letter.key(), Some("ada".as_bytes()));
        for name in ["__connect.errors.partition", "__connect.errors.offset"] {
            header(letter, name).parse::<u32>().unwrap();
        }
    }
    // The view leaves them out as well, and a rebuild agrees.
    system.run("view --once");
    assert!(
        system
            .run("rebuild")
            .contains("6 orders from 10 events, equal")
    );
}

/// It can be read, and its effect fails every time: a sum that no database can hold.
#[test]
fn an_event_that_can_never_have_its_effect_holds_nothing_up() {
    let system = System::start();
    let data = json!({"order_id": uuid::Uuid::new_v4(), "customer": "ada", "number": 1,
        "item": "lamp", "quantity": 2, "unit_cents": i64::MAX, "currency": "EUR"});
    system.run("place 1");
    system.run("relay shop --once");
    let too_dear = envelope("OrderPlaced", 3, data);
    client::publish(&system.bootstrap(), "orders", &[too_dear]);
    system.run("place 7");
    system.run("relay shop --once");
    let payment = system.run("payment --once");
    assert!(
        payment.contains("payment: 8 applied, 0 seen before, 0 ignored, 1 dead letters"),
        "{payment}"
    );
    let letters = client::records(&system.bootstrap(), "orders-payment-dlt");
    assert_eq!(class(&letters[0]), "AmountTooLarge");
}

/// Behind the refused event its key has one that the broker would keep, in a batch of its own.
#[test]
fn an_event_that_the_broker_refuses_stops_the_relay_where_it_is() {
    let system = System::start();
    client::create_topic(
        &system.bootstrap(),
        "orders",
        &[("max.message.bytes", "500000")],
    );
    system.run("place 4");
    let outbox = rusqlite::Connection::open(system.dir().join("shop.db")).unwrap();
    for bytes in [700_000, 400_000] {
        let insert = "INSERT INTO outbox (key, event) VALUES ('fay', ?1)";
        outbox.execute(insert, ["x".repeat(bytes)]).unwrap();
    }
    let published = || client::records(&system.bootstrap(), "orders").len();
    for _ in 0..2 {
        let (status, shown) = system.part("relay shop --once").end();
        assert!(!status.success(), "{shown}");
        assert!(shown.contains("Message size too large"), "{shown}");
        assert!(system.books().contains("outboxes  2 events wait"));
        assert_eq!(published(), 4);
    }
    outbox
        .execute("DELETE FROM outbox WHERE length(event) = 700000", [])
        .unwrap();
    system.run("relay shop --once");
    assert_eq!(published(), 5);
}
