//! What the page shows, and what can be done with it.

mod decisions;
mod explain;
mod hostile;
mod keyboard;
mod looks;
mod refresh;
mod semantics;
mod servers;
mod stage;

use libtest_mimic::Trial;

pub fn stories() -> Vec<Trial> {
    let mut stories = Vec::new();
    stories.extend(servers::stories());
    stories.extend(decisions::stories());
    stories.extend(explain::stories());
    stories.extend(hostile::stories());
    stories.extend(keyboard::stories());
    stories.extend(refresh::stories());
    stories.extend(looks::stories());
    stories.extend(semantics::stories());
    stories
}
