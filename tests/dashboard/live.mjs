// What the dashboard shows and does in front of a real sidecar.

import assert from 'node:assert/strict'

import { inspect, number, open, text, until } from './browser.mjs'
import { ROUTES } from './scene.mjs'

const CAMPAIGNS = '/api/v1/campaigns'
const FORM = '/api/v1/forms/7'
const row = (page, route) => page.locator('tbody.route').filter({ has: page.getByText(route, { exact: true }) })
const events = (page) => page.locator('#events li')
const said = (page) => text(page, '#said')

async function confirm (page, { soft = false } = {}) {
  const dialog = page.locator('dialog#ask[open]')
  if (soft) await dialog.getByLabel('Soft').check()
  await dialog.locator('#ask-go').click()
}

async function expectEvent (page, pattern) {
  await until(`an event like ${pattern}`, () => events(page).allInnerTexts(), (all) => all.some((one) => pattern.test(one.replace(/\s+/g, ' '))))
}

async function idleSaysWhatToDo ({ page, scene }) {
  assert.match(await text(page, '#curl'), /^curl -i http:\/\/127\.0\.0\.1:\d+\/api\/v1\/[\w/]+$/)
  assert.equal(await text(page, '#requests'), '0')
  assert.match(await text(page, '#redis-state'), /^None: entries are in memory only$/)
  const place = row(page, '/api/v1/campaigns/{id}').locator('.where')
  assert.equal(await place.innerText(), `proxy.toml:${scene.routeLine('/api/v1/campaigns/{id}')}`)
}

async function numbersMove ({ page, scene }) {
  assert.equal(await scene.ask(CAMPAIGNS), 'MISS')
  await scene.warm(CAMPAIGNS)
  for (let n = 0; n < 40; n += 1) assert.equal(await scene.ask(CAMPAIGNS), 'HIT')
  await until('requests are counted', () => number(page, '#requests'), (n) => n === scene.asked)
  await page.locator('#no-traffic').waitFor({ state: 'hidden' })
  assert.match(await text(page, '#app-state'), /^Answers at /)
  for (const tile of ['#ratio-minute', '#ratio-start']) await until(`the ratio ${tile}`, () => number(page, tile), (n) => n > 90 && n < 100)
  assert.ok(await number(page, '#app-saved') >= 41)
  assert.match(await text(page, '#hit-p50'), /^[\d.]+ ms$/)
  await until('the app is slower than the cache', async () => [await number(page, '#hit-p50'), await number(page, '#app-p50')], ([hit, app]) => hit < app && app >= 20)
  const isNear = async (tile, name) => {
    const { totals } = await (await fetch(`${scene.url}stats`)).json()
    const ms = totals.latency[name].p50_ms
    // Two digits after the point are shown.
    await until(`${tile} is what the API says`, () => number(page, tile), (shown) => Math.abs(shown - ms) <= Math.max(0.03 * ms, 0.01))
  }
  await isNear('#app-p50', 'app')
  await isNear('#hit-p50', 'hit')
  for (const tile of ['#ratio-all-minute', '#ratio-all-start']) await until(`the ratio ${tile}`, () => number(page, tile), (n) => n > 90 && n < 100)
  assert.match(await text(page, '#version'), /^\d+\.\d+\.\d+/)
  assert.match(await text(page, '#top-config'), / UTC([+-]\d+(:\d+)?)?$/)
  assert.match(await text(page, '#events-zone'), /^UTC/)
  assert.notEqual(await text(page, '#time-saved'), '0 s')
  assert.ok(await number(page, 'tbody.route td[data-label="Requests"]') >= 42)
  for (let n = 0; n < 7; n += 1) await scene.ask(CAMPAIGNS)
  await until('seven more', () => number(page, '#requests'), (n) => n === scene.asked)
  const area = page.locator('#chart-rates path.is-HIT')
  await until('the chart is drawn', () => area.getAttribute('d'), (d) => d?.startsWith('M'))
}

// A page that is opened later has not seen what happened.
async function whoComesLaterSeesIt ({ page, context, scene }) {
  const later = await until('the server has a slot', async () => {
    // A slot whose reading came late on a busy machine is a gap, so there is traffic until one is read.
    for (let n = 0; n < 20; n += 1) await scene.ask(CAMPAIGNS)
    const history = await page.evaluate(async () => (await fetch('history?range=5m')).json())
    return history.series.requests.HIT.reduce((sum, hits) => sum + (hits ?? 0), 0)
  }, (hits) => hits > 40) && await context.newPage()
  await later.goto(page.url())
  const peak = () => later.locator('#chart-rates').getAttribute('aria-label')
  await until('the traffic of before is there', peak, (label) => Number(/at most (\d+(?:\.\d+)?)/.exec(label)?.[1]) > 3)
  await until('with the start', () => later.locator('#marks li').allInnerTexts(), ([one]) => /Restart/.test(one))
  await later.getByLabel('7 days', { exact: true }).check()
  await until('and in the week', () => later.locator('#chart-rates path.is-HIT').getAttribute('d'), (d) => d?.startsWith('M'))
  await later.close()
}

async function reasonsNameTheLine ({ page, scene }) {
  for (let n = 0; n < 3; n += 1) assert.equal(await scene.ask(CAMPAIGNS, { headers: { 'x-theme': '7' } }), 'BYPASS')
  const route = row(page, CAMPAIGNS)
  await route.getByRole('button', { name: CAMPAIGNS }).click()
  const reason = route.locator('.stack > li').filter({ hasText: 'unkeyed header' })
  await until('the reason is told', () => reason.allInnerTexts(), ([told]) => told?.includes('x-theme'))
  assert.match(await reason.innerText(), new RegExp(`line ${scene.routeLine(CAMPAIGNS)} of proxy\\.toml`))
  await reason.getByRole('button', { name: 'Copy' }).click()
  const change = await page.evaluate(() => navigator.clipboard.readText())
  assert.match(change, /^\+x_theme = \{ header = "x-theme" \}$/m)
  assert.match(change, /^\+key = \[.*"x_theme\?"\]$/m)
  assert.match(await reason.innerText(), /has a place in the key\. More entries/)
}

// On a page of its own, so that what is open on the other one stays.
async function reasonsHaveTheirSections ({ page, context, scene }) {
  const reason = row(page, CAMPAIGNS).locator('.stack > li').filter({ hasText: 'unkeyed header' })
  const target = await reason.getByRole('link', { name: 'unkeyed header', exact: true }).evaluate((link) => link.href)
  const own = await context.newPage()
  const asked = []
  own.on('request', (request) => asked.push(new URL(request.url()).pathname))
  await own.goto(target)
  const section = own.locator('#unkeyed-header')
  assert.ok(await section.evaluate((node) => node.matches(':target')))
  const told = await section.innerText()
  for (const part of ['unkeyed header NAME', 'the key does not contain', 'Make the header a field of the key', 'sidecache_requests_total{reason="unkeyed_header"}']) assert.ok(told.includes(part), `${part} in: ${told}`)
  const metrics = await (await fetch(`${scene.url}metrics`)).text()
  assert.match(metrics, /sidecache_requests_total\{[^}]*reason="unkeyed_header"\}/)
  assert.deepEqual([...new Set(asked)].sort(), ['/dashboard/dashboard.css', '/dashboard/reasons.html'], 'it asks for its style alone')
  assert.ok(await own.locator('.why').count() > 50)
  await inspect({ page: own, axe: scene.axe }, 'the page of reasons')
  await own.getByRole('link', { name: 'no route', exact: true }).press('Enter')
  await own.waitForURL(/#no-route$/)
  await own.close()
}

async function purgeByTag ({ page, scene }) {
  await scene.warm(CAMPAIGNS)
  const button = page.getByRole('button', { name: 'Purge campaigns:acme', exact: true })
  await button.click()
  assert.deepEqual(await page.locator('#ask-names li').allInnerTexts(), ['campaigns:acme'])
  await page.getByRole('button', { name: 'Cancel' }).click()
  assert.equal(await scene.ask(CAMPAIGNS), 'HIT', 'nothing is purged by a question')
  await button.click()
  await confirm(page)
  await until('it says so', () => said(page), (told) => /^Purge of campaigns:acme done in/.test(told))
  assert.equal(await scene.ask(CAMPAIGNS), 'MISS')
  await expectEvent(page, /purge admin.*campaigns:acme/)
}

async function purgeByKeyboard ({ page, scene }) {
  await scene.warm(CAMPAIGNS)
  const { keyboard } = page
  const focused = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim())
  const isInDialog = () => page.evaluate(() => document.activeElement === document.body || document.activeElement.closest('dialog') !== null)
  await page.locator('#h-tags').evaluate(() => document.activeElement?.blur())
  await until('Tab reaches the button', async () => {
    await keyboard.press('Tab')
    return focused()
  }, (name) => name === 'Purge campaigns:acme')
  await keyboard.press('Enter')
  assert.equal(await focused(), 'Cancel', 'the harmless answer comes first')
  await keyboard.press('Escape')
  assert.equal(await page.locator('dialog[open]').count(), 0)
  assert.equal(await focused(), 'Purge campaigns:acme', 'focus comes back')
  await keyboard.press('Enter')
  for (let n = 0; n < 6; n += 1) {
    await keyboard.press('Tab')
    assert.ok(await isInDialog(), 'Tab stays in the dialog')
  }
  await until('Tab reaches the answer', async () => {
    await keyboard.press('Tab')
    return focused()
  }, (name) => name === 'Purge campaigns:acme')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'ask-go')
  await keyboard.press('Enter')
  await until('it is purged', () => scene.ask(CAMPAIGNS), (cache) => cache === 'MISS')
}

async function purgeByUrl ({ page, scene }) {
  await scene.warm(CAMPAIGNS)
  await scene.warm(FORM)
  await page.locator('#purge').getByLabel('URLs', { exact: true }).check()
  const field = page.locator('#purge textarea')
  await field.fill('/api/v1/forms/7')
  await page.locator('#purge').getByRole('button').click()
  assert.match(await text(page, '#purge-error'), /is not a URL/)
  await field.fill(`http://127.0.0.1:${scene.port}${FORM}`)
  await page.locator('#purge').getByRole('button').click()
  await confirm(page)
  await until('it is purged', () => said(page), (told) => told.includes(FORM))
  assert.equal(await scene.ask(CAMPAIGNS), 'HIT', 'the others stay')
  assert.equal(await scene.ask(FORM), 'MISS')
}

async function purgeEverything ({ page, scene }) {
  for (const path of [CAMPAIGNS, FORM]) await scene.warm(path)
  await page.locator('#purge').getByLabel('Everything', { exact: true }).check()
  await page.locator('#purge').getByRole('button').click()
  assert.match(await text(page, '#ask-title'), /everything/)
  await confirm(page)
  await until('it says so', () => said(page), (told) => /Purge of everything done/.test(told))
  for (const path of [CAMPAIGNS, FORM]) assert.equal(await scene.ask(path), 'MISS', path)
  await expectEvent(page, /purge admin: everything/)
}

async function softPurge ({ page, scene }) {
  await scene.warm(FORM)
  await page.locator('#purge').getByLabel('Tags', { exact: true }).check()
  await page.locator('#purge textarea').fill('forms:acme\nforms:acme\n')
  await page.locator('#purge').getByRole('button').click()
  assert.deepEqual(await page.locator('#ask-names li').allInnerTexts(), ['forms:acme'])
  await confirm(page, { soft: true })
  await until('it says so', () => said(page), (told) => /^Soft purge of forms:acme/.test(told))
  assert.equal(await scene.ask(FORM), 'STALE')
  await expectEvent(page, /soft purge admin.*forms:acme/)
}

async function writesShowAsTheyHappen ({ page, scene }) {
  await scene.ask(`${CAMPAIGNS}/9`, { method: 'PUT' })
  await expectEvent(page, /purge PUT \/api\/v1\/campaigns\/9 .*campaigns:acme/)
}

async function explains ({ page, scene }) {
  await scene.warm(CAMPAIGNS)
  const form = page.locator('#explain')
  await form.getByLabel('Path and query').fill('api')
  await form.getByRole('button', { name: 'Explain' }).click()
  assert.match(await text(page, '#explain-error'), /begins with a slash/)
  await form.getByLabel('Path and query').fill(CAMPAIGNS)
  await form.getByLabel('Headers').fill(`host: 127.0.0.1:${scene.port}\nx-tenant-id: acme\n`)
  await form.getByRole('button', { name: 'Explain' }).click()
  const told = await until('it is explained', () => text(page, '#explained'), (one) => one.includes('Stored'))
  assert.equal(await page.locator('#explained a').count(), 0, 'a hit has no reason')
  for (const part of [`GET ${CAMPAIGNS}`, 'HIT', 'memory', 'campaigns:acme']) assert.ok(told.includes(part), `${part} in: ${told}`)
  await form.getByLabel('Headers').fill(`host: 127.0.0.1:${scene.port}\nx-tenant-id: nobody\n`)
  await form.getByRole('button', { name: 'Explain' }).click()
  await until('nothing is stored for others', () => text(page, '#explained'), (one) => one.includes('No stored response'))
  await form.getByLabel('Headers').fill(`host: 127.0.0.1:${scene.port}\n`)
  await form.getByRole('button', { name: 'Explain' }).click()
  const link = page.locator('#explained').getByRole('link', { name: 'missing field', exact: true })
  await link.waitFor()
  assert.match(await link.getAttribute('href'), /reasons\.html#missing-field$/)
}

async function switchesOffAndOn ({ page, scene }) {
  await scene.warm(CAMPAIGNS)
  await scene.warm(FORM)
  const route = row(page, CAMPAIGNS)
  await route.getByRole('button', { name: 'Switch this route…' }).click()
  const dialog = page.locator('dialog#switch[open]')
  assert.match(await dialog.innerText(), new RegExp(`Switch this route\\?.*${CAMPAIGNS}`, 's'))
  await page.keyboard.press('Escape')
  assert.equal(await scene.ask(CAMPAIGNS), 'HIT', 'nothing is switched by a question')
  await route.getByRole('button', { name: 'Switch this route…' }).click()
  await dialog.getByLabel('For how long').selectOption('15m')
  await dialog.getByRole('button', { name: 'Switch', exact: true }).click()
  await until('it says so', () => said(page), (told) => told.includes(`${CAMPAIGNS}: off for 15m`))
  assert.equal(await scene.ask(CAMPAIGNS), 'BYPASS')
  assert.equal(await scene.ask(FORM), 'HIT', 'the others stay')
  const mode = route.locator('td[data-label=Mode]')
  await until('the countdown is on the route', () => mode.innerText(), (told) => /off\s+for 1[45] min/.test(told))
  await until('and in the banner', () => text(page, '#switch-list'), (told) => told.includes(CAMPAIGNS) && /1[45] min/.test(told))
  await expectEvent(page, /switched off admin: \/api\/v1\/campaigns for 15 min/)
  await page.getByRole('button', { name: 'Switch all routes…' }).click()
  await dialog.getByLabel('Shadow').check()
  await dialog.getByRole('button', { name: 'Switch', exact: true }).click()
  await until('all are', () => scene.ask(FORM), (cache) => cache === 'BYPASS')
  await route.getByRole('button', { name: 'End the switch' }).click()
  await until('one is ended', () => page.locator('#switch-list li').count(), (n) => n === 1)
  await page.getByRole('button', { name: 'End all switches' }).click()
  await until('none is left', () => page.locator('#switches').isHidden(), (hidden) => hidden)
  for (const path of [CAMPAIGNS, FORM]) assert.equal(await scene.ask(path), 'HIT', path)
  assert.equal(await mode.innerText(), 'on')
}

async function badReloadIsShown ({ page, scene }) {
  const open = row(page, CAMPAIGNS).locator('.more')
  assert.ok(await open.isVisible())
  const broken = ROUTES.replace('ttl = "30s"', 'ttl = "30 parsecs"')
  scene.write(broken)
  const alert = page.locator('#alert-config')
  const told = await until('an alert', () => alert.innerText(), (one) => one.includes('parsecs'))
  assert.ok(told.includes(String(scene.line('ttl = "30 parsecs"'))), `the line is in: ${told}`)
  assert.match(told, /proxy\.toml could not be loaded at/)
  assert.equal(await scene.ask(CAMPAIGNS), 'HIT', 'the old rules stay')
  await inspect({ page, axe: scene.axe }, 'a failed reload', { schemes: ['dark'] })
  scene.write(ROUTES.replace('ttl = "30s"', 'ttl = "40s"'))
  await until('it disappears', () => alert.innerText(), (one) => one === '')
  await until('the new rule shows', () => row(page, '/api/v1/dashboard').locator('td[data-label=TTL]').innerText(), (ttl) => /^40 s/.test(ttl))
  assert.ok(await open.isVisible(), 'what was open stays open')
  await page.getByRole('button', { name: 'Reload proxy.toml' }).click()
  await until('a reload by hand says what it did', () => text(page, '#alert-reload'), (one) => /Reloaded/.test(one))
  await expectEvent(page, /reload failed .*parsecs/)
}

async function requestsShowAsTheyHappen ({ page, scene }) {
  const lines = page.locator('#tail-lines tr')
  const told = async () => (await lines.allInnerTexts()).map((line) => line.replace(/\s+/g, ' '))
  const form = page.locator('#tail-form')
  await scene.ask(CAMPAIGNS)
  assert.equal(await lines.count(), 0, 'nothing is streamed unasked')
  await page.getByRole('button', { name: 'Start' }).click()
  await until('it streams', () => text(page, '#tail-state'), (one) => one === 'Live')
  await page.mouse.move(0, 0)
  await scene.ask(`${CAMPAIGNS}?token=hunter2`, { headers: { 'x-theme': '7' } })
  const first = await until('a request', told, (all) => all.length === 1)
  assert.match(first[0], /BYPASS 200 GET \/api\/v1\/campaigns unkeyed header x-theme \/api\/v1\/campaigns [\d.]+ ms/)
  assert.ok(!first[0].includes('hunter2'), first[0])
  await form.getByLabel('X-Cache').selectOption('HIT')
  await form.getByLabel('Route').selectOption(CAMPAIGNS)
  await until('the list begins anew', () => text(page, '#tail-state'), (one) => one === 'Live')
  assert.equal(await lines.count(), 0)
  await scene.warm(FORM)
  await scene.warm(CAMPAIGNS)
  await scene.ask(CAMPAIGNS)
  await until('hits of that route alone', told, (all) => all.length >= 1 && all.every((line) => /HIT 200 GET \/api\/v1\/campaigns /.test(line)))
  await page.getByRole('button', { name: 'Pause' }).click()
  await until('it is paused', () => text(page, '#tail-state'), (one) => one === 'Paused')
  await until('the sidecar is rid of it', async () => (await fetch(`${scene.url}metrics`)).text(), (all) => all.includes('sidecache_tail_subscribers 0'))
  await page.getByRole('button', { name: 'Clear' }).click()
  await form.getByLabel('X-Cache').selectOption('')
  await form.getByLabel('Route').selectOption('')
}

async function looksWell (opened) {
  const { page } = opened
  await inspect(opened, 'traffic')
  await page.locator('#purge').getByLabel('Everything', { exact: true }).check()
  await page.locator('#purge').getByRole('button').click()
  await inspect(opened, 'the question')
  await page.keyboard.press('Escape')
}

async function lossIsShownAndEnds ({ page, scene }) {
  await scene.kill()
  await until('it is told', () => text(page, '#alert-lost'), (one) => one.includes('Connection lost'))
  assert.equal(await text(page, '#link'), 'Connection lost')
  await scene.run()
  await until('it comes back', () => text(page, '#link'), (one) => one === 'Live')
  assert.equal(await text(page, '#alert-lost'), '')
  await until('the numbers begin anew', () => text(page, '#requests'), (n) => n === '0')
}

// In this order: later ones use what earlier ones have left on the page.
async function memoryIsBrowsed ({ page, scene }) {
  await scene.warm(`${FORM}?page=secret`)
  await scene.warm(CAMPAIGNS)
  await page.getByRole('button', { name: 'In memory with forms:acme', exact: true }).click()
  const rows = page.locator('#memory-rows > tr')
  await until('the entry with the tag', () => rows.allInnerTexts(), (told) => told.length > 0 && told.every((row) => row.includes('forms:acme')))
  const row = rows.filter({ hasText: 'page=…' })
  assert.match(await row.innerText(), new RegExp(`127\\.0\\.0\\.1:${scene.port}${FORM}\\?page=….*fresh`, 's'))
  assert.ok(!(await text(page, '#memory-card')).includes('secret'))
  await row.getByRole('button', { name: /^Purge / }).click()
  await confirm(page)
  await until('it is purged', () => said(page), (told) => told.includes(FORM))
  await page.locator('#memory-card').getByRole('button', { name: 'Look' }).click()
  await until('it says so', () => row.innerText(), (told) => /purged/.test(told))
  assert.equal(await scene.ask(CAMPAIGNS), 'HIT', 'the others stay')
  await page.locator('#memory-card').getByRole('button', { name: 'Close' }).click()
}

export const LIVE = {
  'without traffic it says what to do': idleSaysWhatToDo,
  'numbers move with traffic': numbersMove,
  'who comes later sees what was before': whoComesLaterSeesIt,
  'reasons name the line that would mend them': reasonsNameTheLine,
  'a reason has its section': reasonsHaveTheirSections,
  'a purge by tag asks first and empties': purgeByTag,
  'a purge by keyboard alone': purgeByKeyboard,
  'a purge by URL leaves the others': purgeByUrl,
  'a purge of everything': purgeEverything,
  'a soft purge': softPurge,
  'the memory is browsed, and one URL purged': memoryIsBrowsed,
  'writes show as they happen': writesShowAsTheyHappen,
  'requests are explained': explains,
  'routes are switched off and on': switchesOffAndOn,
  'a bad reload is shown, and mended': badReloadIsShown,
  'requests show as they happen': requestsShowAsTheyHappen,
  'light, dark, on a phone, for axe-core': looksWell,
  'a lost connection is shown, and ends': lossIsShownAndEnds
}

// With a token the browser asks for it, and sends it by itself.
export async function withToken (chromium, scene) {
  const refused = await fetch(`${scene.url}stats`)
  assert.equal(refused.status, 401)
  const options = { httpCredentials: { username: 'admin', password: scene.token } }
  // Chromium logs the 401 that makes it ask.
  const opened = await open(chromium, scene.url, { options, allowed: [/401/] })
  const { page, context, complaints } = opened
  await scene.warm(CAMPAIGNS)
  await until('numbers move', () => number(page, '#requests'), (n) => n >= 2)
  assert.equal((await fetch(`${scene.url}dashboard/reasons.html`)).status, 401)
  await page.getByRole('link', { name: 'reasons' }).click()
  await page.locator('#no-route').waitFor()
  await page.goBack()
  await page.locator('#link[data-state=live]').waitFor()
  await page.getByRole('button', { name: 'Purge campaigns:acme', exact: true }).click()
  await confirm(page)
  await expectEvent(page, /purge admin.*campaigns:acme/)
  assert.equal(await scene.ask(CAMPAIGNS), 'MISS')
  assert.deepEqual(complaints, [])
  await context.close()
}
