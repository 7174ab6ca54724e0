/** Asks people for a key, in a dialog, for all requests that want one at once. */

import { key } from "./api.js";
import { byId, setText } from "./dom.js";

/** @param {() => void} changed called when there is another key, or none any more */
export function startKeys(changed) {
  const dialog = byId("key-dialog"), input = byId("key-input"), button = byId("key");
  /** @type {Promise<boolean> | null} whether a key was given */
  let asking = null;

  function ask(reason) {
    button.hidden = false;
    asking ??= new Promise((resolve) => {
      setText(byId("key-reason"), reason);
      input.value = dialog.returnValue = "";
      byId("key-forget").hidden = !key.get();
      dialog.showModal();
      dialog.addEventListener("close", () => {
        asking = null;
        resolve(dialog.returnValue === "given");
        if (dialog.returnValue) changed();
      }, { once: true });
    });
    return asking;
  }
  dialog.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!input.value.trim()) return;
    key.set(input.value.trim());
    dialog.close("given");
  });
  byId("key-cancel").addEventListener("click", () => dialog.close());
  byId("key-forget").addEventListener("click", () => {
    key.forget();
    dialog.close("forgotten");
  });
  button.addEventListener("click", () => ask(key.get() ? "A key is in use." : "No key is in use."));
  button.hidden = !key.get();
  key.askWith(ask);
}
