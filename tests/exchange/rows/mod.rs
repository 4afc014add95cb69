//! The table.

mod chunks;
mod connections;
mod heads;
mod hosts;
mod lengths;
mod limits;
mod malformed;
mod responses;

use super::row::Row;

/// Every row, with the name of its group.
pub fn all() -> impl Iterator<Item = (&'static str, Row)> {
    let groups = [
        ("heads", heads::rows()),
        ("hosts", hosts::rows()),
        ("lengths", lengths::rows()),
        ("chunks", chunks::rows()),
        ("limits", limits::rows()),
        ("connections", connections::rows()),
        ("responses", responses::rows()),
        ("malformed", malformed::rows()),
    ];
    groups.into_iter().flat_map(|(group, rows)| rows.into_iter().map(move |row| (group, row)))
}
