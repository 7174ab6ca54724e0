/** Asks people for a key, in a dialog, for all requests that want one at once. */

import { key } from "./api.js";
import { byId, setText } from "./dom.js";

/** @type {Promise<boolean> | null} */
let asking = null;

/** @param {() => void} changed called when there is another key, or none any more */
export function startKeys(changed) {
  const dialog = byId("key-dialog"), input = byId("key-input");

  function ask(reason) {
    byId("key").hidden = false;
    asking ??= new Promise((resolve) => {
      setText(byId("key-reason"), reason);
      input.value = "";
      byId("key-forget").hidden = !key.get();
      dialog.returnValue = "";
      dialog.showModal();
      dialog.addEventListener("close", () => {
        asking = null;
        const given = dialog.returnValue === "given";
        resolve(given);
        if (given) changed();
      }, { once: true });
    });
    return asking;
  }

  function leave(outcome) {
    dialog.close(outcome);
  }
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    key.set(input.value.trim());
    leave("given");
  });
  byId("key-cancel").addEventListener("click", () => leave("cancelled"));
  byId("key-forget").addEventListener("click", () => {
    key.forget();
    leave("forgotten");
    changed();
  });
  byId("key").addEventListener("click", () => ask(key.get() ? "A key is in use." : "No key is in use."));
  byId("key").hidden = !key.get();
  key.askWith(ask);
}
