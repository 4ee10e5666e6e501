// The pictures of the manual: a minute of plausible traffic through a real sidecar, on a wide screen, in the dark, and on a phone.

import fs from 'node:fs'
import path from 'node:path'

import { open, PHONE } from './browser.mjs'

const WIDE = { width: 1280, height: 1640 }
// Until the page has rates of its own.
const SETTLE_MS = 8000
const PICTURES = {
  'dashboard.png': { viewport: WIDE, colorScheme: 'light' },
  'dashboard-dark.png': { viewport: WIDE, colorScheme: 'dark' },
  'dashboard-phone.png': { viewport: PHONE, colorScheme: 'light' }
}

const SECONDS = 70
const MOST_BYTES = 300 * 1024
const TENANTS = ['acme', 'globex', 'initech']

// What is asked for, and how often a second.
const TRAFFIC = [
  [22, (n) => ['/api/v1/campaigns', {}, n]],
  [14, (n) => [`/api/v1/campaigns/${n % 23}`, {}, n]],
  [9, (n) => [`/api/v1/forms/${n % 31}`, {}, n]],
  [3, (n) => ['/api/v1/dashboard', {}, n]],
  [1, (n) => ['/api/v1/campaigns', { headers: { 'x-account-id': '7' } }, n]],
  [3, (n) => [`/static/${n % 5}.css`, {}, n]],
  [0.4, (n) => [`/api/v1/campaigns/${n % 23}`, { method: 'PUT' }, n]]
]

export async function screenshots (chromium, scene, folder) {
  const timers = TRAFFIC.map(([rate, what]) => {
    let n = 0
    return setInterval(() => {
      const [target, options, at] = what(n += 1)
      scene.ask(target, { tenant: TENANTS[at % TENANTS.length], ...options }).catch(() => {})
    }, 1000 / rate)
  })
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000))
  const files = []
  for (const [name, options] of Object.entries(PICTURES)) {
    const file = path.join(folder, name)
    const { page, context } = await open(chromium, scene.url, { options })
    const toggle = page.getByRole('button', { name: '/api/v1/campaigns', exact: true })
    await toggle.click()
    await toggle.blur()
    await page.waitForTimeout(SETTLE_MS)
    await page.mouse.move(0, 0)
    await page.evaluate(() => window.scrollTo(0, 0))
    await page.screenshot({ path: file })
    const { size } = fs.statSync(file)
    if (size > MOST_BYTES) throw new Error(`${name} has ${size} bytes, and ${MOST_BYTES} are the limit`)
    await context.close()
    files.push(file)
  }
  timers.forEach(clearInterval)
  await scene.end()
  return files
}
