//! The table and what plays it.
//!
//! | module | what it is |
//! |---|---|
//! | [`row`] | one row: what is sent from either side, and what must arrive |
//! | [`rows`] | the table |
//! | [`clients`] | a few clients that nobody here has written |
//! | [`differences`] | where other proxies do not do what the table says, and why |
//! | [`stage`] | plays a row, as client and server at once |
//! | [`subject`] | the programs in the middle |
//! | [`wire`] | where a message ends, without the balancer's own code |

pub mod clients;
pub mod differences;
pub mod row;
pub mod rows;
pub mod stage;
pub mod subject;
pub mod wire;
