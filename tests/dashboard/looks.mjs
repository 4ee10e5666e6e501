// The looks of the dashboard that a real sidecar shows only in trouble or after long, in front of one that only plays.

import assert from 'node:assert/strict'

import { inspect, open, text, until } from './browser.mjs'
import { HOSTILE, Mock, serve } from './mock.mjs'

async function withMock (chromium, mock, settings, check) {
  const served = await serve(mock, settings)
  const opened = await open(chromium, served.url, settings)
  try {
    await check({ ...opened, mock, served })
    assert.deepEqual(opened.complaints, [])
  } finally {
    await opened.context.close()
    await served.close()
  }
}

// Lets so many polls pass.
async function polls (page, n) {
  for (let at = 0; at < n; at += 1) await page.waitForResponse((response) => response.url().endsWith('/stats'))
  await page.evaluate(() => new Promise(requestAnimationFrame))
}

async function strangersTextIsText (chromium) {
  const mock = new Mock('hostile')
  await withMock(chromium, mock, {}, async (opened) => {
    const { page } = opened
    mock.tell({ kind: 'purge', by: 'write', method: 'PUT', path: HOSTILE, tags: [HOSTILE], more_tags: 3, everything: false, soft: false })
    mock.tell({ kind: 'finding', finding: 'stale', route: HOSTILE, text: HOSTILE })
    const toggle = page.getByRole('button', { name: /onerror/ }).first()
    await toggle.click()
    await until('it is among the events', () => text(page, '#events'), (told) => told.includes('onerror'))
    assert.equal(await page.locator('img').count(), 0)
    assert.equal(await page.title(), 'Sidecache')
    assert.ok(!(await page.evaluate(() => document.body.textContent)).includes('\u202e'), 'what turns text around is shown by its number')
    await inspect(opened, "strangers' text")
    await page.getByRole('button', { name: /^Purge .*onerror/ }).click()
    await inspect(opened, "a question about strangers' text", { schemes: ['light'] })
    await page.locator('#ask-go').click()
    await until('the tag itself is purged', () => mock.asked.length, (n) => n === 1)
    assert.deepEqual(mock.asked[0], { tags: [HOSTILE], soft: false })
  })
}

async function manyRoutesStayInPlace (chromium) {
  await withMock(chromium, new Mock('many'), {}, async (opened) => {
    const { page } = opened
    const rows = page.locator('tbody.route')
    assert.equal(await rows.count(), 201)
    const toggle = page.getByRole('button', { name: '/api/v1/forms/{*rest}', exact: true })
    await toggle.click()
    await page.evaluate(() => {
      window.moved = 0
      const note = (changes) => { for (const { target, addedNodes } of changes) window.moved += [...addedNodes].filter((node) => node.nodeType === 1 && target.nodeType === 1).length }
      new MutationObserver(note).observe(document.querySelector('.routes'), { childList: true, subtree: true })
    })
    const before = await rows.nth(2).innerText()
    await polls(page, 4)
    assert.notEqual(await rows.nth(2).innerText(), before, 'the numbers move')
    assert.equal(await page.evaluate(() => window.moved), 0, 'and no element is built anew or moved')
    assert.ok(await toggle.evaluate((node) => document.activeElement === node), 'focus stays')
    assert.equal(await toggle.getAttribute('aria-expanded'), 'true')
    await page.getByLabel('Filter').fill('resource-19')
    assert.equal(await rows.locator('visible=true').locator('.disclose').count(), 5)
    await page.getByLabel('Filter').fill('')
    await page.getByLabel('Order').selectOption('ratio')
    await until('they are in order', () => rows.first().innerText(), (told) => /resource-/.test(told))
    // Their rows are like those of the others, which axe-core has seen: of 200 it would take its time.
    await inspect(opened, '200 routes', { schemes: [] })
  })
}

async function quietForScreenReaders (chromium) {
  const options = { reducedMotion: 'reduce' }
  await withMock(chromium, new Mock('busy'), { options }, async ({ page }) => {
    await polls(page, 1)
    await page.evaluate(() => {
      window.spoken = []
      const note = (changes) => window.spoken.push(...changes.map(({ target }) => target.textContent))
      for (const node of document.querySelectorAll('[role=status], [role=alert], [aria-live]')) new MutationObserver(note).observe(node, { childList: true, subtree: true, characterData: true })
    })
    const before = await text(page, '#requests')
    await polls(page, 4)
    assert.notEqual(await text(page, '#requests'), before)
    assert.deepEqual(await page.evaluate(() => window.spoken), [], 'nothing is read out each second')
    assert.equal(await page.locator('#link').evaluate((node) => getComputedStyle(node, '::before').animationName), 'none')
    const label = () => page.locator('#chart-rates').getAttribute('aria-label')
    await until('the chart is told in words', label, (told) => /now [\d.]+ \(HIT [\d.]+/.test(told))
    await page.locator('#chart-table summary').click()
    await until('and as a table', () => page.locator('#chart-rows tr').count(), (n) => n > 0)
  })
}

async function hiddenItRests (chromium) {
  await withMock(chromium, new Mock('busy'), {}, async ({ page, mock }) => {
    await until('the events are listened to', () => mock.streams.size, (n) => n === 1)
    const hide = (value) => page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, value)
    await hide(true)
    await until('nobody listens', () => mock.streams.size, (n) => n === 0)
    let asked = 0
    page.on('request', () => { asked += 1 })
    await new Promise((resolve) => setTimeout(resolve, 2500))
    assert.equal(asked, 0)
    assert.equal(await text(page, '#link'), 'Paused')
    await hide(false)
    await until('it goes on', () => text(page, '#link'), (told) => told === 'Live')
    await until('and listens', () => mock.streams.size, (n) => n === 1)
  })
}

async function troubleIsPlain (chromium) {
  await withMock(chromium, new Mock('degraded'), {}, async (opened) => {
    const { page } = opened
    assert.equal(await text(page, '#status'), 'Degraded')
    assert.match(await text(page, '#alert-ready'), /Degraded: requests are served with restrictions\..*redis is lost: the connection broke/s)
    assert.match(await text(page, '#alert-notes'), /a restart is needed for: memory\.size/)
    assert.match(await text(page, '#alert-notes'), /None of 532 requests with cookies has carried sessoin/)
    assert.equal(await text(page, '#redis-state'), 'Degraded: redis is lost: the connection broke')
    assert.match(await text(page, '#alert-ready'), /the app at 127\.0\.0\.1:8000 does not accept connections/)
    assert.match(await text(page, '#app-state'), /^Fails since .*, 51 requests failed: the app at 127\.0\.0\.1:8000 does not accept connections: the connection was refused\. What to do: start the app, or correct `url` in \[upstream\]$/)
    assert.equal(await text(page, '#redis-lease'), 'Not held: each hit asks Redis')
    assert.equal(await text(page, '#redis-journal'), '3 purges not in Redis yet')
    await inspect(opened, 'degraded')
  })
  await withMock(chromium, new Mock('failed'), { allowed: [/status of 422/] }, async (opened) => {
    const { page, mock } = opened
    assert.match(await text(page, '#alert-config'), /could not be loaded at .*72:9/s)
    await page.getByRole('button', { name: 'Reload again' }).click()
    await until('it stays', () => text(page, '#alert-config'), (told) => told.includes('72:9'))
    await inspect(opened, 'a failed reload')
    mock.config = { ...mock.config, error: null, failed_ms: null, loads: 2 }
    await until('it goes', () => text(page, '#alert-config'), (told) => told === '')
    await page.getByRole('button', { name: 'Reload proxy.toml' }).click()
    await until('what changed is told', () => text(page, '#alert-reload'), (told) => /1 change.*ttl "5m" → "10s"/s.test(told))
  })
}

async function littleToShow (chromium) {
  await withMock(chromium, new Mock('empty'), {}, async (opened) => {
    const { page } = opened
    assert.match(await text(page, '#first-route'), /^\[\[routes\]\]/)
    assert.equal(await page.locator('tbody.route').locator('visible=true').count(), 0)
    await inspect(opened, 'no routes')
  })
  await withMock(chromium, new Mock('idle'), {}, async (opened) => {
    assert.match(await text(opened.page, '#curl'), /^curl/)
    assert.equal(await text(opened.page, '#app-state'), 'Not asked yet, at 127.0.0.1:8000')
    await inspect(opened, 'no traffic', { schemes: ['dark'] })
  })
  await withMock(chromium, new Mock('memory'), {}, async ({ page }) => {
    assert.match(await text(page, '#redis-state'), /^None: entries are in memory only$/)
    assert.ok(await page.locator('#redis-lease').isHidden())
  })
}

async function findingsAreShown (chromium) {
  await withMock(chromium, new Mock('shadow'), { options: { permissions: ['clipboard-read', 'clipboard-write'] } }, async (opened) => {
    const { page } = opened
    const advice = page.locator('#advice > li')
    await until('the advice', () => advice.allInnerTexts(), ([one]) => one?.includes('PUT /api/v1/forms/7'))
    await advice.getByRole('button', { name: 'Copy' }).click()
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^\[\[purges\]\]\npath = /)
    assert.match(await text(page, '#examples'), /another body for another credential, though the scope is public/)
    await inspect(opened, 'findings')
  })
}

async function memoryIsBrowsed (chromium) {
  await withMock(chromium, new Mock('busy'), { allowed: [/status of 400/] }, async (opened) => {
    const { page, mock } = opened
    const card = page.locator('#memory-card')
    const rows = page.locator('#memory-rows > tr')
    const shown = (n) => until(`${n} rows`, () => rows.count(), (count) => count === n)
    assert.ok(await card.isHidden())
    await polls(page, 2)
    assert.deepEqual(mock.sought, [], 'nothing is searched before somebody asks')
    await page.getByRole('button', { name: 'In memory with campaigns:acme' }).click()
    await shown(50)
    assert.deepEqual(mock.sought, [{ order: 'hottest', limit: '50', tag: 'campaigns:acme' }])
    assert.equal(await page.evaluate(() => document.activeElement.id), 'h-memory', 'the focus is where the list begins')
    assert.match(await text(page, '#memory-summary'), /^50 of 120 entries shown, [\d.]+ MiB: fresh 100, purged 20\.$/)
    assert.match(await rows.first().innerText(), /app\.example\.com\/api\/v1\/campaigns\/0\?page=…&….*404.*private.*caller 0a1b2c3d.*no route finds it/s)
    await inspect(opened, 'memory')
    await polls(page, 2)
    assert.equal(mock.sought.length, 1, 'the list is not searched for again by itself')
    const more = page.getByRole('button', { name: 'Next entries' })
    await more.click()
    await shown(100)
    await more.click()
    await shown(120)
    assert.ok(await more.isHidden())
    assert.equal(mock.sought[2].after, 'hottest-100')
    await card.getByLabel('Sorted by').selectOption('largest')
    await card.getByLabel('Path').fill('/api/*')
    await card.getByRole('button', { name: 'Look' }).click()
    await shown(50)
    assert.deepEqual(mock.sought[3], { order: 'largest', limit: '50', tag: 'campaigns:acme', path: '/api/*' })
    assert.equal(await rows.getByRole('button').locator('visible=true').count(), 25, 'only what has a URL can be purged')
    await rows.getByRole('button').first().click()
    await page.locator('#ask-go').click()
    await until('the URL is purged', () => mock.asked.length, (n) => n === 1)
    assert.deepEqual(mock.asked[0], { urls: ['http://app.example.com/api/v1/campaigns/0'], soft: false })
    await card.getByRole('textbox', { name: 'Tag' }).fill('')
    await card.getByRole('button', { name: 'Look' }).click()
    assert.equal(await text(page, '#memory-error'), 'Which tag?')
    await card.getByRole('textbox', { name: 'Tag' }).fill('nothing')
    await card.getByRole('button', { name: 'Look' }).click()
    await shown(0)
    assert.match(await text(page, '#memory-summary'), /^0 of 0 entries shown/)
    await card.getByRole('combobox', { name: 'Entries' }).selectOption('route')
    await card.getByRole('textbox', { name: 'Route' }).fill('/gone')
    await card.getByRole('button', { name: 'Look' }).click()
    await until('the error is told', () => text(page, '#memory-error'), (told) => /no such route/.test(told))
    await card.getByRole('button', { name: 'Close' }).click()
    assert.ok(await card.isHidden())
    assert.equal(await page.evaluate(() => document.activeElement.id), 'browse')
    await page.getByRole('button', { name: '/api/v1/forms/{*rest}', exact: true }).click()
    await page.getByRole('button', { name: 'What memory holds of it' }).locator('visible=true').click()
    await shown(50)
    assert.equal(mock.sought.at(-1).route, '/api/v1/forms/{*rest}')
  })
  await withMock(chromium, new Mock('hostile'), {}, async (opened) => {
    const { page } = opened
    await page.locator('#browse').click()
    await until('the entries', () => page.locator('#memory-rows > tr').count(), (n) => n === 50)
    assert.equal(await page.locator('img').count(), 0)
    assert.ok(!(await page.evaluate(() => document.body.textContent)).includes('\u202e'))
    await inspect(opened, "strangers' paths in memory", { schemes: ['dark'] })
  })
}

export const LOOKS = {
  "strangers' text stays text": strangersTextIsText,
  '200 routes are updated in place': manyRoutesStayInPlace,
  'live regions are quiet, charts have words': quietForScreenReaders,
  'a hidden page rests': hiddenItRests,
  'degraded, and a file that does not load': troubleIsPlain,
  'no routes, no traffic, no Redis': littleToShow,
  'findings and advice': findingsAreShown,
  'what memory holds': memoryIsBrowsed
}
