/** Light, dark, or as the system says. */

const THEMES = ["auto", "light", "dark"];
const THEME = "dormouse-theme";

/** @param {HTMLElement} button goes from one to the next */
export function startTheme(button) {
  let place = Math.max(0, THEMES.indexOf(localStorage.getItem(THEME)));

  function show() {
    document.documentElement.dataset.theme = THEMES[place];
    button.textContent = `Theme: ${THEMES[place]}`;
  }
  button.addEventListener("click", () => {
    place = (place + 1) % THEMES.length;
    localStorage.setItem(THEME, THEMES[place]);
    show();
  });
  show();
}
