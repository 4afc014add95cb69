//! `/explain.json?src=ADDR&method=M&path=P&header=NAME:VALUE…`: the question in a URL.

use serde_json::json;

use super::super::explain::{Explanation, Question};
use super::super::{Desk, json_line};

/// Status and body. `query`: what stands behind the `?`. Which server an address or a cookie belongs to is nobody's business
/// who is not on this host.
pub(super) fn answer(desk: &Desk, query: &str, is_private: bool) -> (u16, String) {
    if !is_private {
        let why = "only who is on this host may ask: --http-admin listens on an address that others can reach; \
                   use `balancer explain`";
        return (403, refused(why));
    }
    // In a form's encoding a space is a plus sign, and a plus sign is encoded.
    let query = query.replace('+', "%20");
    let words: Vec<&str> = query.split('&').filter(|word| !word.is_empty()).collect();
    let Some(question) = Question::parse(&words) else {
        return (
            400,
            refused("write /explain.json?src=ADDR&method=M&path=P&header=NAME:VALUE, percent-encoded"),
        );
    };
    match Explanation::of(desk, &question) {
        Ok(explanation) => (200, json_line(&explanation)),
        Err(why) => (400, refused(&why)),
    }
}

fn refused(why: &str) -> String {
    json_line(&json!({ "error": why }))
}
