//! A headless Chromium with an empty profile, driven by W3C WebDriver. Nothing of it is left when it is dropped, or when
//! this process dies.

mod driver;
mod wire;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use driver::Driver;
pub use driver::missing;

/// Longest wait for anything that a page is to show.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Keys, as WebDriver writes them.
pub const TAB: char = '\u{e004}';
pub const ENTER: char = '\u{e007}';
pub const ESCAPE: char = '\u{e00c}';

/// The member that holds an element's number: it is the same for all drivers.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// One window.
pub struct Browser {
    driver: Driver,
}

impl Browser {
    pub fn start() -> Self {
        Self { driver: Driver::start() }
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.driver.post("url", &json!({ "url": url }));
    }

    /// What a JavaScript expression is.
    pub fn ask(&self, expression: &str) -> Value {
        self.run(&format!("return {expression};"))
    }

    /// What a script returns.
    pub fn run(&self, script: &str) -> Value {
        self.driver.post("execute/sync", &json!({ "script": script, "args": [] }))
    }

    pub fn holds(&self, expression: &str) -> bool {
        self.ask(&format!("Boolean({expression})")) == true
    }

    /// Waits until the expression is true.
    pub fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.holds(expression) {
            assert!(
                Instant::now() < deadline,
                "never: {expression}\n{}",
                self.ask("document.body.innerText")
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until there is such an element and its text, on the screen or not, has `part` in it.
    pub fn until_text(&self, selector: &str, part: &str) {
        let (selector, part) = (json!(selector), json!(part));
        self.until(&format!("document.querySelector({selector})?.textContent.includes({part})"));
    }

    /// The text of an element, on the screen or not.
    pub fn text(&self, selector: &str) -> String {
        let text = self.ask(&format!("document.querySelector({})?.textContent.trim()", json!(selector)));
        text.as_str().unwrap_or_else(|| panic!("there is no {selector}")).to_owned()
    }

    /// People can see it.
    pub fn shows(&self, selector: &str) -> bool {
        self.holds(&format!("document.querySelector({})?.checkVisibility()", json!(selector)))
    }

    /// A click where the element is on the screen.
    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.driver.post(&format!("element/{element}/click"), &json!({}));
    }

    /// A click into a field, and keys.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.driver.post(&format!("element/{element}/clear"), &json!({}));
        self.driver.post(&format!("element/{element}/value"), &json!({ "text": text }));
    }

    /// Keys, one after another, wherever the focus is.
    pub fn press(&self, keys: impl AsRef<str>) {
        let each = |key: char| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key }));
        let keys: Vec<Value> = keys.as_ref().chars().flat_map(each).collect();
        self.driver
            .post("actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": keys }] }));
    }

    /// A command of Chromium's own protocol.
    pub fn command(&self, name: &str, parameters: &Value) -> Value {
        self.driver.post("goog/cdp/execute", &json!({ "cmd": name, "params": parameters }))
    }

    /// A window of that size; a phone's below 600 pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.command("Emulation.setDeviceMetricsOverride", &size);
    }

    /// `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.command("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// A picture of the whole page, below the fold, too.
    pub fn picture(&self, path: &Path) {
        let size = self.run(
            "scrollTo(0, 0);
             return {x: 0, y: 0, width: innerWidth, height: document.scrollingElement.scrollHeight, scale: 1};",
        );
        let how = json!({ "format": "png", "captureBeyondViewport": true, "clip": size });
        let answer = self.command("Page.captureScreenshot", &how);
        let bytes = STANDARD.decode(answer["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(path, bytes).expect("written");
    }

    /// What was written to the console since the last look: errors, and what a policy forbade.
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.log("browser");
        entries.iter().map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What was asked for, from wherever, since the last look.
    pub fn requests(&self) -> Vec<String> {
        let entries = self.log("performance");
        let event = |entry: &Value| -> Value {
            serde_json::from_str(entry["message"].as_str().unwrap_or_default()).expect("an event")
        };
        let sent = entries
            .iter()
            .map(event)
            .filter(|event| event["message"]["method"] == "Network.requestWillBeSent");
        // The first tab shows a page of the browser's own.
        let asked = sent.map(|event| event["message"]["params"].clone());
        let of_pages = asked
            .filter(|asked| !asked["documentURL"].as_str().is_some_and(|url| url.starts_with("chrome:")));
        of_pages.map(|asked| asked["request"]["url"].as_str().expect("a URL").to_owned()).collect()
    }

    fn log(&self, kind: &str) -> Vec<Value> {
        self.driver.post("se/log", &json!({ "type": kind })).as_array().cloned().expect("entries")
    }

    fn element(&self, selector: &str) -> String {
        let found = self.driver.post("element", &json!({ "using": "css selector", "value": selector }));
        found[ELEMENT].as_str().expect("an element").to_owned()
    }
}
