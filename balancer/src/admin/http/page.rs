//! `/status`: a page that shows `/status.json`, and asks `/explain.json`. It is one file that loads nothing from elsewhere:
//! its style and its script are in it, and a browser is told to run these and no other.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const FRAME: &str = include_str!("page/status.html");
const STYLE: &str = include_str!("page/status.css");
const SCRIPT: &str = include_str!("page/status.js");

/// The page.
pub(super) static PAGE: LazyLock<String> =
    LazyLock::new(|| FRAME.replace("{style}", STYLE).replace("{script}", SCRIPT));

/// What it may do (Content Security Policy, level 2): its own style and script by their hashes, and ask this host.
pub(super) static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_of_reasonable_size() {
        let page = &*PAGE;
        assert!(page.contains(STYLE) && page.contains(SCRIPT), "both have their place");
        assert!(page.len() < 64 * 1024, "{} bytes", page.len());
        // The end of either inside of it would be the end of it.
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</script"));
        for loads in ["src=\"", "href=\"http", "url(", "@import"] {
            assert!(!page.contains(loads), "{loads}");
        }
    }
}
