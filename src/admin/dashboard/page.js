// The page's parts: nodes, templates, lists, messages. Text is set by textContent only, never as markup: paths, tags,
// header names and reasons are untrusted. Nodes are updated in place, so that focus, selections and open details survive.

const TOAST_MS = 10_000

export const NONE = '–'
const TONES = { HIT: 'good', REVALIDATED: 'good', STALE: 'warn', MISS: '', BYPASS: '', on: 'good', shadow: 'warn', off: 'bad' }

export const $ = (id) => document.getElementById(id)

export function put (node, text) {
  const shown = String(text)
  if (node.textContent !== shown) node.textContent = shown
}

export function set (node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value)
}

// Escapes invisible characters and those that change the direction of text.
export function clean (text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g,
    (c) => `\\u{${c.codePointAt(0).toString(16)}}`)
}

// The file of a rule: an included one by its name, else the config file.
export const fileOfRule = (rule, stats) => rule.file ? clean(rule.file) : fileOf(stats)

// The name of the config file, without its folder.
export const fileOf = (stats) => clean(stats.config.file ?? 'proxy.toml').replace(/^.*[/\\]/, '')

// Clones a template and returns its named parts.
export function stamp (id) {
  const root = $(id).content.firstElementChild.cloneNode(true)
  const parts = { root }
  for (const node of root.querySelectorAll('[data-f]')) parts[node.dataset.f] = node
  return parts
}

export function make (tag, text = '', className = '') {
  const node = document.createElement(tag)
  if (text !== '') node.textContent = text
  if (className) node.className = className
  return node
}

export const rowsOf = new WeakMap()

// Updates the children of `parent` to match `items`, reusing existing ones by key. Children without a key stay in front.
export function keyed (parent, items, keyOf, create, update, mayMove = true) {
  const kept = rowsOf.get(parent) ?? new Map()
  const seen = new Map()
  for (const item of items) {
    const key = keyOf(item)
    if (seen.has(key)) continue
    const row = kept.get(key) ?? create(item)
    if (!row.root.parentNode) parent.append(row.root)
    update(row, item)
    seen.set(key, row)
  }
  for (const [key, row] of kept) if (!seen.has(key)) row.root.remove()
  rowsOf.set(parent, seen)
  if (mayMove) arrange(parent, [...seen.values()].map((row) => row.root))
}

// Moves only misplaced elements, because a moved element loses the focus.
function arrange (parent, wanted) {
  let place = [...parent.children].find((node) => wanted.includes(node))
  for (const node of wanted) {
    if (node === place) place = place.nextElementSibling
    else parent.insertBefore(node, place ?? null)
  }
}

export const isInUse = (node) => node.matches(':hover, :focus-within')

// Fills a list of names and values.
export function facts (list, pairs) {
  keyed(list, pairs.filter(([, value]) => value !== null).flatMap(([name, value]) => [['dt', name, name], ['dd', name, value]]),
    ([tag, name]) => `${tag} ${name}`, ([tag]) => ({ root: make(tag) }), ({ root }, [, , text]) => put(root, clean(text)))
}

export function word (node, text) {
  put(node, clean(text))
  set(node, 'data-tone', TONES[text] ?? '')
}

export async function copy (text, button) {
  try {
    await navigator.clipboard.writeText(text)
  } catch {
    // Without TLS the clipboard API exists on loopback only. execCommand works everywhere.
    const area = make('textarea', text, 'hidden')
    document.body.append(area)
    area.select()
    const done = document.execCommand('copy')
    area.remove()
    button.focus()
    if (!done) return say('failed', 'The browser did not let the page copy. Select the text instead.')
  }
  say('said', 'Copied')
}

export function fill (bar, ratio) {
  const width = `${(100 * Math.min(1, ratio ?? 0)).toFixed(1)}%`
  if (bar.firstElementChild.style.width !== width) bar.firstElementChild.style.width = width
}

export function lines (text) {
  return text.split('\n').map((line) => line.trim()).filter(Boolean)
}

// Tells what is wrong with what was typed, beside it.
export function complain (id, field, text) {
  put($(id), clean(text))
  if (!field) return
  if (!text) return field.removeAttribute('aria-invalid')
  field.setAttribute('aria-invalid', 'true')
  field.focus()
}

export function banner (place, tone, title, { text = '', list = [], button = null } = {}) {
  const parts = stamp('t-banner')
  parts.root.classList.add(tone)
  put(parts.title, clean(title))
  put(parts.text, clean(text))
  for (const line of list) parts.list.append(make('li', clean(line)))
  const [label, action] = button ?? ['Dismiss', () => place.replaceChildren()]
  put(parts.button, label)
  parts.button.addEventListener('click', action)
  place.replaceChildren(parts.root)
}

// Shows a message in a corner and announces it to screen readers. Failures stay until dismissed.
export function say (place, text) {
  const node = $(place)
  clearTimeout(node.timer)
  banner(node, place === 'failed' ? 'bad' : 'good', text)
  if (place === 'said') node.timer = setTimeout(() => { if (!isInUse(node)) node.replaceChildren() }, TOAST_MS)
}

// Calls `show` only if the value has changed since the last call.
export const remembered = new Map()
export function onChange (name, value, show) {
  const now = JSON.stringify(value)
  if (remembered.get(name) === now) return
  remembered.set(name, now)
  show(value)
}
