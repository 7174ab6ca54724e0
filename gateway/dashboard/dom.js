/** Making and changing elements. Whatever comes from the server is set as text, never as markup. */

/**
 * @param {string} tag
 * @param {Record<string, string | number | boolean>} [attributes]
 * @param {...(Node | string)} children
 * @returns {HTMLElement}
 */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** As `element`, for SVG. */
export function shape(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  setAttributes(node, attributes);
  node.append(...children);
  return node;
}

/** `false` takes an attribute away, `true` sets an empty one; what is as it should be is not touched. */
export function setAttributes(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    const text = value === true ? "" : String(value);
    if (value === false) node.removeAttribute(name);
    else if (node.getAttribute(name) !== text) node.setAttribute(name, text);
  }
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @returns {HTMLElement} */
export const byId = (id) => document.getElementById(id);

/**
 * Keeps one child of `parent` for each key, in their order, so that focus and tooltips outlive an update.
 * @template Item
 * @param {Element} parent
 * @param {Map<string, {node: Element, update: (item: Item) => void}>} kept
 * @param {Item[]} items
 * @param {(item: Item) => string} keyOf
 * @param {(item: Item) => {node: Element, update: (item: Item) => void}} make
 */
export function keepChildren(parent, kept, items, keyOf, make) {
  const keys = new Set(items.map(keyOf));
  for (const [key, child] of kept) {
    if (!keys.has(key)) {
      child.node.remove();
      kept.delete(key);
    }
  }
  items.forEach((item, place) => {
    const key = keyOf(item);
    if (!kept.has(key)) kept.set(key, make(item));
    const child = kept.get(key);
    if (parent.children[place] !== child.node) parent.insertBefore(child.node, parent.children[place] ?? null);
    child.update(item);
  });
}
