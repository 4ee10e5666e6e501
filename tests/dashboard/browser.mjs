// Debian's Chromium, and pages that are watched: whatever a page says in its console, asks of others or tries against its policy is noted.

import assert from 'node:assert/strict'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const CHROMIUM = '/usr/bin/chromium'
const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'
]
const WAIT_MS = 20_000

export const PHONE = { width: 360, height: 740 }
export const DESK = { width: 1280, height: 900 }

// Starts Chromium with a profile of its own, which ends with it.
export async function launch (folder) {
  const require = createRequire(path.join(folder, 'package.json'))
  const { chromium } = require('playwright-core')
  const axe = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS })
  return { browser, axe }
}

// Opens the dashboard. `allowed` are complaints of the console that a test causes on purpose.
export async function open ({ browser, axe }, url, { options = {}, allowed = [] } = {}) {
  const context = await browser.newContext({ viewport: DESK, ...options })
  context.setDefaultTimeout(WAIT_MS)
  const page = await context.newPage()
  const complaints = []
  const complain = (text) => { if (!allowed.some((pattern) => pattern.test(text))) complaints.push(text) }
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) complain(`console: ${message.text()}`) })
  page.on('pageerror', (error) => complain(`exception: ${error.message}`))
  page.on('request', (request) => {
    const asked = new URL(request.url())
    if (asked.protocol !== 'data:' && asked.origin !== new URL(url).origin) complain(`a request to ${asked.origin}`)
  })
  await page.exposeFunction('noteViolation', (text) => complain(`policy: ${text}`))
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => window.noteViolation(`${event.violatedDirective} ${event.blockedURI}`))
  })
  await page.goto(url)
  await page.locator('#link[data-state=live]').waitFor()
  return { page, context, complaints, axe }
}

// What is to be true of each look of the page: on a desk and a phone, in light and dark.
export async function inspect (opened, name, { schemes = ['light', 'dark'] } = {}) {
  const { page, axe } = opened
  for (const scheme of schemes) {
    await page.emulateMedia({ colorScheme: scheme })
    await page.evaluate(axe)
    const { violations } = await page.evaluate(() => window.axe.run({ resultTypes: ['violations'] }))
    const told = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html.slice(0, 160)).join(' | ')}`)
    assert.deepEqual(told, [], `${name}, ${scheme}: axe-core finds`)
  }
  await page.setViewportSize(PHONE)
  const wide = await page.evaluate(() => {
    const inner = document.documentElement.clientWidth
    const over = [...document.querySelectorAll('body *')].filter((node) => node.getBoundingClientRect().right > inner + 1 && !node.closest('.scroll, .hidden, svg'))
    return { by: document.documentElement.scrollWidth - inner, over: over.slice(0, 3).map((node) => node.outerHTML.slice(0, 120)) }
  })
  assert.deepEqual(wide, { by: 0, over: [] }, `${name}: on a phone nothing scrolls sideways`)
  await page.setViewportSize(DESK)
  await page.emulateMedia({ colorScheme: 'light' })
}

// Waits for `read` to be what `judge` says; its last value is in the message.
export async function until (what, read, judge) {
  const end = Date.now() + WAIT_MS
  let last
  do {
    last = await read()
    if (judge(last)) return last
    await new Promise((resolve) => setTimeout(resolve, 50))
  } while (Date.now() < end)
  assert.fail(`${what}: not within ${WAIT_MS / 1000} s; the last was ${JSON.stringify(last)}`)
}

export const text = (page, selector) => page.locator(selector).first().innerText()

// Numbers on the page are written for people.
export const number = async (page, selector) => Number((await text(page, selector)).replace(/[^\d.]/g, ''))
