// The looks of the dashboard that a real sidecar shows only in trouble or after long, in front of one that only plays.

import assert from 'node:assert/strict'

import { inspect, open, text, until } from './browser.mjs'
import { HOSTILE, INCIDENT, Mock, serve } from './mock.mjs'

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

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

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
    await until('it is among the sidecars', () => text(page, '#sidecars-table'), (told) => told.includes('onerror'))
    await until('it is among the events', () => text(page, '#events'), (told) => told.includes('onerror'))
    await until('and on the axis', () => text(page, '#marks'), (told) => told.includes('onerror'))
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
    // Hidden in the middle of a round, of which the sidecars are the next to be asked for.
    mock.held = []
    await until('a round is in its middle', () => mock.held.length, (n) => n === 1)
    await pause(2600)
    await hide(true)
    await until('nobody listens', () => mock.streams.size, (n) => n === 0)
    const asked = []
    page.on('request', (request) => asked.push(request.url()))
    const last = page.waitForResponse((response) => response.url().endsWith('/stats'))
    mock.release()
    await last
    await pause(2500)
    assert.deepEqual(asked, [])
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
    assert.match(await text(page, '#app-state'), /^Fails since .*, 51 requests failed: the app at 127\.0\.0\.1:8000 does not accept connections: the connection was refused\. What to do: start the app, or correct its `url`$/)
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

// Where the path of a chart begins, how far it goes, and of how many pieces it is.
async function extent (page, selector) {
  const path = await page.locator(selector).getAttribute('d') ?? ''
  const x = [...path.matchAll(/[ML](-?[\d.]+) /g)].map(([, at]) => Number(at))
  const { width } = await page.locator(selector).evaluate((node) => node.ownerSVGElement.getBoundingClientRect())
  return { from: Math.min(...x) / width, to: Math.max(...x) / width, pieces: path.split('M').length - 1 }
}

const kindsOf = (page, chart) => page.locator(`${chart} .mark`).evaluateAll((nodes) => nodes.map((node) => node.dataset.kind))

async function theIncidentIsThereAfterwards (chromium) {
  const options = { timezoneId: 'Asia/Tokyo' }
  await withMock(chromium, new Mock('incident'), { options, moves: false }, async (opened) => {
    const { page } = opened
    // What was before the page was opened is there at once: this page has seen a few seconds.
    const live = await until('five minutes are there', () => extent(page, '#chart-rates path.is-HIT'), ({ from, to }) => from < 0.1 && to > 0.9)
    assert.equal(live.pieces, 1, 'without a gap')
    assert.equal(await text(page, '#chart-when'), 'now')
    assert.match(await text(page, '#chart-zone'), /^Times are in this browser's zone, Asia\/Tokyo \(UTC\+0?9(:00)?\)\.$/)
    assert.ok(await page.locator('#marks-part').isHidden(), 'nothing happened in these minutes')

    await page.getByLabel('24 h', { exact: true }).check()
    const rows = page.locator('#marks li')
    const told = await until('what happened is told', () => rows.allInnerTexts(), (all) => all.length === INCIDENT.events.length)
    for (const [at, pattern] of [[0, /App back/], [1, /Redis back/], [2, /Redis lost .*connection broke/], [3, /App down .*does not accept connections/], [4, /Everything purged .*by admin/], [5, /Reload failed .*is not a duration.*; 14 times, last at/], [7, /No numbers before .*suspended/], [8, /Restart .*version 0\.1\.0 started/]]) {
      assert.match(told[at].replace(/\s+/g, ' '), pattern)
    }
    assert.match(await text(page, '#marks-dropped'), /^7 earlier ones are no longer kept\.$/)
    for (const chart of ['#chart-rates', '#chart-ratio', '#multiple-app svg']) assert.deepEqual(await kindsOf(page, chart), INCIDENT.events, chart)
    const names = await page.locator('#chart-rates .mark title').allTextContents()
    assert.ok(names.every((name) => /^[A-Z][\w ]+, /.test(name)), names.join(' | '))
    const hits = await extent(page, '#chart-rates path.is-HIT')
    assert.equal(hits.pieces, 2, 'the night is a gap, neither zero nor a line')
    assert.ok(hits.from > 0.15, 'and nothing is drawn before the start')
    assert.match(await text(page, '#chart-note'), /^There are no numbers from before the start of this process, /)
    assert.equal((await extent(page, '#multiple-memory path.line-1')).pieces, 2)
    assert.equal((await extent(page, '#multiple-redis path.line-1')).pieces, 3, 'Redis has one more')
    assert.equal(await page.locator('#chart-rates .state.is-degraded').count(), 1)
    assert.match(await page.locator('#chart-rates').getAttribute('aria-label'), /over the last 1 d: now .*, at most .* 9 events are listed below\./)
    assert.match(await page.locator('#multiple-app svg').getAttribute('aria-label'), /^Latency, origin: p50 latest 181 ms, highest 2\.90 s; p95 latest 430 ms, highest 9\.80 s\.$/)
    assert.equal(await page.locator('.multiple').locator('visible=true').count(), 7)

    // At the pointer: the numbers of that time, and the mark's name.
    const box = await page.locator('#chart-rates .mark[data-kind=app_down] line').boundingBox()
    await page.mouse.move(box.x, box.y + box.height / 2)
    await until('the mark is told', () => text(page, '#chart-when'), (one) => /^App down, .*does not accept connections/.test(one))
    await page.mouse.move(box.x + 12, box.y + box.height / 2)
    await until('and the numbers', () => text(page, '#multiple-app .legend'), (one) => /p95\s+9\.80 s/.test(one))
    await page.mouse.move(0, 0)

    await page.locator('#chart-table summary').click()
    const table = page.locator('#chart-rows tr')
    const lines = await until('the table has the whole day', () => table.allInnerTexts(), (all) => all.length === 24)
    assert.ok(lines.some((line) => /no numbers/.test(line)), 'with its gaps')
    assert.ok(lines.some((line) => /App down/.test(line) && /9\.80 s/.test(line)), lines.join('\n'))
    await inspect(opened, 'a day with an incident')

    await page.getByLabel('24 h', { exact: true }).focus()
    await page.keyboard.press('ArrowRight')
    await until('seven days by keyboard', () => page.locator('#chart-rates').getAttribute('aria-label'), (label) => /over the last 7 d/.test(label))
    const week = await page.locator('#chart-rates text').allTextContents()
    assert.ok(week.filter((label) => /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) \d+$/.test(label)).length >= 6, week.join(' '))
    assert.equal(await table.count(), 28)
    await page.getByLabel('5 min', { exact: true }).check()
    await until('and back', () => text(page, '#chart-when'), (one) => one === 'now')
    await until('the list goes with the range', () => page.locator('#marks-part').isHidden(), (hidden) => hidden)
  })
}

async function withoutHistoryItIsLive (chromium) {
  const mock = new Mock('busy')
  mock.failsHistory = true
  await withMock(chromium, mock, { allowed: [/status of 500/] }, async ({ page }) => {
    await until('it is told', () => text(page, '#chart-note'), (told) => told === 'The history could not be fetched: out of order.')
    await polls(page, 4)
    assert.match(await page.locator('#chart-rates path.is-HIT').getAttribute('d'), /^M/)
    assert.equal(await text(page, '#link'), 'Live')
    await page.getByLabel('6 h', { exact: true }).check()
    await until('a range without numbers says so', () => page.locator('#chart-empty').isVisible(), (visible) => visible)
    mock.failsHistory = false
    await page.getByLabel('1 h', { exact: true }).check()
    await until('and it comes back', () => text(page, '#chart-note'), (told) => told === '')
    await until('with numbers', () => extent(page, '#chart-rates path.is-HIT'), ({ from }) => from < 0.1)
  })
}

async function switchesCountDown (chromium) {
  await withMock(chromium, new Mock('degraded'), { moves: false }, async (opened) => {
    const { page, mock } = opened
    assert.ok(await page.locator('#switches').isHidden())
    mock.order({ mode: 'off', route: null, for: '5m' })
    mock.order({ mode: 'shadow', route: '/api/v1/campaigns', for: '15m' })
    const list = page.locator('#switch-list li')
    await until('both are told', () => list.allInnerTexts(), (told) => told.length === 2 && /off All routes: every request goes to the origin, for 4 min 5\d s more/.test(told[0].replace(/\s+/g, ' ')) && /14 min \d+ s more/.test(told[1].replace(/\s+/g, ' ')))
    await inspect(opened, 'switches')
    const spoken = await text(page, '#switches-said')
    assert.match(spoken, /^All routes: switched to off; .*campaigns: switched to shadow$/)
    mock.order({ mode: 'off', route: null, for: '2s' })
    await until('the one for all ends by itself', () => list.count(), (n) => n === 1)
    assert.notEqual(await text(page, '#switches-said'), spoken)
    await page.evaluate(() => {
      window.spoken = 0
      new MutationObserver(() => { window.spoken += 1 }).observe(document.getElementById('switches-said'), { childList: true, subtree: true, characterData: true })
    })
    await polls(page, 3)
    assert.equal(await page.evaluate(() => window.spoken), 0, 'the countdown is not read out')
    await page.getByRole('button', { name: 'Switch all routes…' }).click()
    await inspect(opened, 'the question of a switch', { schemes: ['light', 'dark'] })
    await page.locator('#switch-go').click()
    await until('who may not know of it is told', () => text(page, '#said'), (told) => /All routes: off for 1h\. Other sidecars may not know of it: redis is lost/.test(told))
    await page.getByRole('button', { name: 'End all switches' }).click()
    await until('nothing is left', () => page.locator('#switches').isHidden(), (hidden) => hidden)
    assert.deepEqual(mock.asked.slice(-2).map(({ mode, route }) => [mode, route]), [['off', null], ['on', null]])
  })
  await withMock(chromium, new Mock('hostile'), { moves: false }, async (opened) => {
    opened.mock.order({ mode: 'off', route: `/${HOSTILE}`, for: '1h' })
    await until('it is told', () => text(opened.page, '#switch-list'), (told) => told.includes('onerror'))
    assert.equal(await opened.page.locator('img').count(), 0)
    await inspect(opened, "a switch of strangers' text")
  })
}

async function liveRequestsHoldStill (chromium) {
  const mock = new Mock('hostile')
  await withMock(chromium, mock, { moves: false }, async (opened) => {
    const { page } = opened
    const lines = page.locator('#tail-lines tr')
    const send = (n, path = (at) => `/n/${at}`) => { for (let at = 0; at < n; at += 1) mock.request({ path: path(at), disposition: 'HIT', route: '/api/v1/dashboard' }) }
    const start = page.getByRole('button', { name: 'Start' })
    await start.focus()
    await page.keyboard.press('Enter')
    await until('it streams', () => text(page, '#tail-state'), (one) => one === 'Live')
    send(300)
    await until('the newest 200 are shown', () => lines.count(), (n) => n === 200)
    assert.match(await lines.first().innerText(), /\/n\/299/, 'the newest is on top')
    mock.request({ path: `/${HOSTILE}`, subject: HOSTILE, reason: HOSTILE, route: HOSTILE, disposition: 'MISS', status: 503 })
    await until('text of strangers is text', () => lines.first().innerText(), (one) => one.includes('onerror'))
    assert.equal(await page.locator('img').count(), 0)
    assert.ok(!(await page.evaluate(() => document.body.textContent)).includes('\u202e'))
    await inspect(opened, 'live requests')
    await page.locator('#tail-scroll').focus()
    send(7, (at) => `/late/${at}`)
    mock.missed(12, 3)
    await until('new ones wait while the list has the focus', () => text(page, '#tail-count'), (told) => told.startsWith('7 new lines') && told.includes('15 more'))
    assert.ok(!(await lines.first().innerText()).includes('/late/'))
    await page.locator('#tail-scroll').evaluate((node) => node.blur())
    await until('they are shown after it', () => lines.first().innerText(), (told) => told.includes('/late/6'))
    assert.equal(await page.locator('#tail-lines').evaluate((node) => node.closest('[aria-live], [role=log], [role=status]')), null, 'the list is read when it is asked for')
    // A page that is hidden reads nothing; one that is shown again goes on.
    const hide = (hidden) => page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
    await hide(true)
    await until('it is closed', () => mock.tails.size, (n) => n === 0)
    await hide(false)
    await until('it is open again', () => mock.tails.size, (n) => n === 1)
    await page.locator('#tail-form').getByLabel('Path').fill('a b&c')
    await page.keyboard.press('Enter')
    await until('the filter is sent', () => mock.tailed.at(-1), (query) => new URLSearchParams(query).get('path') === 'a b&c')
    await page.getByRole('button', { name: 'Pause' }).click()
    await until('nobody reads', () => mock.tails.size, (n) => n === 0)
  })
}

async function allSidecarsAreOnOnePage (chromium) {
  await withMock(chromium, new Mock('fleet'), {}, async (opened) => {
    const { page } = opened
    const rows = page.locator('#sidecars-table tbody')
    await until('three sidecars', () => rows.allInnerTexts(), (all) => all.length === 3)
    const cells = (await rows.allInnerTexts()).map((one) => one.replace(/\s+/g, ' ').trim())
    assert.match(cells[0], /^web-1 127\.0\.0\.1:8080 this sidecar ready .* same$/)
    assert.match(cells[1], /degraded the app at 127\.0\.0\.1:8000 .* different$/)
    assert.match(cells[2], /last heard 1 min 35 s ago silent/)
    assert.equal(await text(page, '#sidecars-count'), '2 sidecars, 1 silent')
    assert.equal(await text(page, '#sidecars-rate'), '100', 'a silent one counts for nothing')
    assert.match(await text(page, '#sidecars-why'), /^2 values in Redis/)
    assert.match(await text(page, '#alert-peers'), /^For 15 min, other rules than here are in force in web-2/)
    await inspect(opened, 'all sidecars')
  })
  await withMock(chromium, new Mock('busy'), {}, async ({ page }) => {
    await polls(page, 3)
    assert.ok(await page.locator('#sidecars').isHidden(), 'one alone is no list')
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

async function whatToCacheNext (chromium) {
  await withMock(chromium, new Mock('busy'), { options: { permissions: ['clipboard-read', 'clipboard-write'] } }, async (opened) => {
    const { page } = opened
    const rows = page.locator('#uncached-rows > tr')
    const [first, second] = await until('the paths', () => rows.allInnerTexts(), (all) => all.length === 2)
    assert.match(first, /^\/api\/v1\/invoices\/\{n\}\s.*74\.0\s?%.*suggested below/s)
    assert.match(second, /^\/login\s.*none: a login/s)
    const route = page.locator('#uncached-routes > li')
    assert.match(await route.innerText(), /in shadow mode.*do not purge them/s)
    await route.getByRole('button', { name: 'Copy' }).click()
    assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^\+path = "\/api\/v1\/invoices\/\{id\}"$/m)
    assert.ok(await page.locator('#uncached-sampling').isHidden())
    assert.match(await text(page, '#uncached-count'), /^4,600 requests without a route, [^,]* in the app$/)
    await inspect(opened, 'what to cache next')
  })
  const sampled = new Mock('busy')
  sampled.samples = true
  await withMock(chromium, sampled, {}, async (opened) => {
    const { page } = opened
    await until('it says that it is a sample', () => text(page, '#uncached-count'), (told) => told.endsWith('estimated from a sample of 101'))
    assert.ok(await page.locator('#uncached-sampling').isVisible())
    const [first, second] = await page.locator('#uncached-rows > tr').allInnerTexts()
    assert.match(first, /4,210\s+of a sample of 85\s.*74\.0\s?%\s+of 64 compared/s)
    assert.ok(!second.includes('sample'), second)
    await inspect(opened, 'a sample of what to cache next', { schemes: ['dark'] })
  })
}

// The second poll is never answered: what is shown is what the page knows from the server alone.
async function tilesAreFullAtOnce (chromium) {
  const mock = new Mock('incident')
  mock.holdsStats = true
  await withMock(chromium, mock, { moves: false }, async ({ page }) => {
    await until('the page has asked twice', () => mock.statsAsked, (n) => n === 2)
    await until('the rate', () => text(page, '#rps'), (told) => Number(told) > 40 && Number(told) < 120)
    assert.match(await text(page, '#ratio-minute'), /^8\d\.\d\s?%$/)
    assert.match(await text(page, '#ratio-all-minute'), /^7\d\.\d\s?%$/)
    assert.equal(await text(page, '#ratio-span'), 'last minute')
  })
  const idle = new Mock('idle')
  idle.holdsStats = true
  await withMock(chromium, idle, { moves: false }, async ({ page }) => {
    await until('the page has asked twice', () => idle.statsAsked, (n) => n === 2)
    assert.equal(await text(page, '#rps'), '–', 'what nobody knows is not zero')
  })
}

async function reasonsAreLinks (chromium) {
  const mock = new Mock('hostile')
  await withMock(chromium, mock, { moves: false }, async (opened) => {
    const { page } = opened
    // Text of strangers is no link, and what is a reason is one.
    await page.getByRole('button', { name: /onerror/ }).first().click()
    const hostile = page.locator('.stack > li').filter({ hasText: 'onerror' }).first()
    await until('the hostile reason is told', () => hostile.innerText(), (told) => told.includes('onerror'))
    assert.equal(await hostile.locator('.reason a').count(), 0)
    await page.getByRole('button', { name: '/api/v1/dashboard', exact: true }).click()
    const known = page.locator('.reason').getByRole('link', { name: 'unkeyed header', exact: true })
    await until('a known one is a link', () => known.count(), (n) => n === 1)
    await page.getByRole('button', { name: 'Start' }).click()
    await until('it streams', () => text(page, '#tail-state'), (one) => one === 'Live')
    mock.request({ path: '/only-here', disposition: 'BYPASS', reason: 'missing field', subject: HOSTILE })
    mock.request({ path: '/only-here', disposition: 'BYPASS', reason: HOSTILE, subject: null })
    mock.request({ path: '/only-here', disposition: 'BYPASS', reason: 'constructor', subject: null })
    const line = (has) => page.locator('#tail-lines tr').filter({ hasText: has })
    await until('all three', () => line('/only-here').count(), (n) => n === 3)
    const field = line('missing field').getByRole('link')
    assert.equal(await field.innerText(), 'missing field', 'the name after it is not in the link')
    assert.equal(await line('/only-here').locator('a').count(), 1)
    assert.equal(await page.locator('img').count(), 0)
    await inspect(opened, 'links of reasons', { schemes: ['light', 'dark'] })

    // Every link leads to a section, and the keyboard gets there.
    const links = await page.locator('a[href*="reasons.html#"]').evaluateAll((all) => all.map((one) => one.href))
    assert.ok(links.length >= 4, links.join(' '))
    await field.focus()
    await page.keyboard.press('Enter')
    await page.waitForURL(/dashboard\/reasons\.html#missing-field$/)
    assert.match(await page.locator('.why:target').innerText(), /^missing field NAME.*lacks a field.*Let clients send the field/s)
    const ids = new Set(await page.locator('.why').evaluateAll((all) => all.map((one) => one.id)))
    for (const link of links) assert.ok(ids.has(new URL(link).hash.slice(1)), link)
    await page.getByRole('link', { name: 'Dashboard' }).click()
    await page.locator('#link[data-state=live]').waitFor()
  })
  await withMock(chromium, new Mock('shadow'), {}, async ({ page }) => {
    const link = page.locator('#shadow-rows').getByRole('link', { name: 'set-cookie' }).first()
    assert.match(await link.getAttribute('href'), /reasons\.html#set-cookie$/)
    assert.match(await page.locator('#shadow-rows').innerText(), /set-cookie 41/)
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
  'an incident is there afterwards': theIncidentIsThereAfterwards,
  'without the history the page is live': withoutHistoryItIsLive,
  'switches count down': switchesCountDown,
  'live requests hold still': liveRequestsHoldStill,
  'all sidecars': allSidecarsAreOnOnePage,
  'what memory holds': memoryIsBrowsed,
  'what to cache next': whatToCacheNext,
  'reasons are links to their sections': reasonsAreLinks,
  'the tiles are full at once': tilesAreFullAtOnce
}
