/** Light, dark, or as the system says. */

const THEMES = ["auto", "light", "dark"];
const THEME = "dormouse-theme";

/** @param {HTMLElement} button goes from one to the next */
export function startTheme(button) {
  let theme = THEMES.includes(localStorage.getItem(THEME)) ? localStorage.getItem(THEME) : "auto";

  function show() {
    document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  }
  button.addEventListener("click", () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    localStorage.setItem(THEME, theme);
    show();
  });
  show();
}
