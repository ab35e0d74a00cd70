//! The books: what each service's database says, side by side. They balance when every order was
//! handled exactly once by everyone, and the same money and goods stand in all of them. Only for
//! looking: no service reads another's database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rusqlite::Connection;

use crate::consumer::Handler;
use crate::failure::Failure;
use crate::mail::{self, Mail};
use crate::payment::Payment;
use crate::settings::Settings;
use crate::stock::Stock;
use crate::{database, outbox, shop, view};

/// What the databases say.
#[derive(Debug)]
pub struct Books {
    /// Orders placed, items in them, money by currency.
    orders: u64,
    items: u64,
    money: BTreeMap<String, u64>,
    /// Movements of the stock, distinct orders in them, items.
    movements: u64,
    stock_orders: u64,
    stock_items: u64,
    /// Payments, distinct orders in them, money by currency.
    payments: u64,
    payment_orders: u64,
    payment_money: BTreeMap<String, u64>,
    /// Orders in the view's last snapshot, and how many of them are complete.
    view_orders: u64,
    view_complete: u64,
    /// Mails sent, and distinct ids among them.
    mails: usize,
    mail_ids: usize,
    /// Events that wait in the three outboxes.
    unsent: u64,
}

/// The databases, open for looking.
pub struct Ledgers {
    shop: Connection,
    stock: Connection,
    payment: Connection,
    view: Connection,
    mails: std::path::PathBuf,
}

impl Ledgers {
    /// Opens all databases; what is not there yet is created empty.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        let dir = &settings.dir;
        database::open(dir, Mail::NAME, Mail::SCHEMAS)?;
        Ok(Self {
            shop: database::open(dir, shop::NAME, &[outbox::SCHEMA, shop::TABLES])?,
            stock: database::open(dir, Stock::NAME, Stock::SCHEMAS)?,
            payment: database::open(dir, Payment::NAME, Payment::SCHEMAS)?,
            view: database::open(dir, view::NAME, &[view::TABLES])?,
            mails: mail::server(dir),
        })
    }

    /// What they say now.
    pub fn books(&self) -> Result<Books, Failure> {
        let mails = std::fs::read_to_string(&self.mails).unwrap_or_default();
        let ids: BTreeSet<_> = mails
            .lines()
            .filter_map(|mail| mail.split_whitespace().nth(1))
            .collect();
        let waiting = "SELECT count(*) FROM outbox WHERE NOT sent";
        let mut unsent = 0;
        for outbox in [&self.shop, &self.stock, &self.payment] {
            unsent += number(outbox, waiting)?;
        }
        let distinct = "count(DISTINCT order_id)";
        Ok(Books {
            orders: number(&self.shop, "SELECT count(*) FROM orders")?,
            items: number(&self.shop, "SELECT coalesce(sum(quantity), 0) FROM orders")?,
            money: money(
                &self.shop,
                "SELECT currency, sum(quantity * unit_cents) FROM orders GROUP BY currency",
            )?,
            movements: number(&self.stock, "SELECT count(*) FROM movements")?,
            stock_orders: number(&self.stock, &format!("SELECT {distinct} FROM movements"))?,
            stock_items: number(&self.stock, "SELECT coalesce(-sum(level), 0) FROM levels")?,
            payments: number(&self.payment, "SELECT count(*) FROM payments")?,
            payment_orders: number(&self.payment, &format!("SELECT {distinct} FROM payments"))?,
            payment_money: money(
                &self.payment,
                "SELECT currency, sum(cents) FROM payments GROUP BY currency",
            )?,
            view_orders: number(&self.view, "SELECT count(*) FROM orders")?,
            view_complete: number(&self.view, "SELECT count(*) FROM orders WHERE complete")?,
            mails: mails.lines().count(),
            mail_ids: ids.len(),
            unsent,
        })
    }
}

impl Books {
    /// Whether every order was handled exactly once everywhere, and goods and money agree. Of the
    /// mails only the ids must: a mail may have been sent twice.
    pub fn balance(&self) -> bool {
        let counts = [
            self.movements,
            self.stock_orders,
            self.payments,
            self.payment_orders,
            self.view_orders,
            self.view_complete,
            self.mail_ids as u64,
        ];
        counts.iter().all(|count| *count == self.orders)
            && self.stock_items == self.items
            && self.payment_money == self.money
            && self.unsent == 0
    }
}

impl fmt::Display for Books {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let orders = self.orders;
        writeln!(
            f,
            "orders    {orders}: {} items, {}",
            self.items,
            Money(&self.money)
        )?;
        writeln!(
            f,
            "stock     {} movements for {} orders: {} items",
            self.movements, self.stock_orders, self.stock_items
        )?;
        writeln!(
            f,
            "payments  {} for {} orders: {}",
            self.payments,
            self.payment_orders,
            Money(&self.payment_money)
        )?;
        writeln!(
            f,
            "view      {} orders, {} complete",
            self.view_orders, self.view_complete
        )?;
        writeln!(
            f,
            "mails     {} sent, {} distinct",
            self.mails, self.mail_ids
        )?;
        writeln!(f, "outboxes  {} events wait", self.unsent)?;
        let verdict = if self.balance() {
            "balance"
        } else {
            "do not balance"
        };
        write!(f, "the books {verdict}")
    }
}

/// Sums by currency, as people write them.
struct Money<'a>(&'a BTreeMap<String, u64>);

impl fmt::Display for Money<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no money");
        }
        for (index, (currency, cents)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(
                f,
                "{separator}{currency} {}.{:02}",
                cents / 100,
                cents % 100
            )?;
        }
        Ok(())
    }
}

fn number(connection: &Connection, query: &str) -> Result<u64, Failure> {
    Ok(connection.query_row(query, [], |row| row.get(0))?)
}

fn money(connection: &Connection, query: &str) -> Result<BTreeMap<String, u64>, Failure> {
    let mut query = connection.prepare(query)?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
