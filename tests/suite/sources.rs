//! Changes that no request tells: real databases that are written to directly.

mod hammer;
mod histories;
mod mysql;
mod mysql_faults;
mod mysql_shop;
mod mysql_sql;
mod postgres;
mod postgres_faults;
mod postgres_sql;
mod shadow;
mod shop;
mod watch;
mod webhook;
