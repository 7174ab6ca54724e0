/** Making and changing elements. Whatever comes from the server is set as text, never as markup. */

/** @returns {HTMLElement} */
export const byId = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, string | number | false>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export const element = (tag, attributes = {}, ...children) => filled(document.createElement(tag), attributes, children);

/** As `element`, for SVG. */
export const shape = (tag, attributes = {}, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

function filled(node, attributes, children) {
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

/** A copy of what the template has, with its title: `node`, and those of its elements that have a `data-part`. */
export function copyOf(template, title) {
  const node = byId(template).content.firstElementChild.cloneNode(true);
  const named = [...node.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]);
  const parts = Object.fromEntries(named);
  parts.title.textContent = parts.title.title = title;
  return { node, ...parts };
}

/** `false` takes an attribute away; what is as it should be is not touched. */
export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
  }
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Keeps one child of `parent` for each item, by its name and in their order, so that focus and tooltips outlive
 * an update.
 * @template {{name: string}} Item
 * @param {Element} parent
 * @param {(item: Item) => {node: Element, update?: (item: Item, ...more: unknown[]) => void}} make
 * @returns {(items: Item[], ...more: unknown[]) => void}
 */
export function keeper(parent, make) {
  const kept = new Map();
  return (items, ...more) => {
    const names = new Set(items.map((item) => item.name));
    for (const [name, { node }] of kept) {
      if (names.has(name)) continue;
      node.remove();
      kept.delete(name);
    }
    items.forEach((item, place) => {
      if (!kept.has(item.name)) kept.set(item.name, make(item));
      const { node, update } = kept.get(item.name);
      if (parent.children[place] !== node) parent.insertBefore(node, parent.children[place] ?? null);
      update?.(item, ...more);
    });
  };
}
