// The picture of the manual: a minute of plausible traffic through a real sidecar.

import fs from 'node:fs'

import { open } from './browser.mjs'

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

export async function screenshot (chromium, scene, file) {
  const opened = await open(chromium, scene.url, { options: { viewport: { width: 1280, height: 1180 }, colorScheme: 'light' } })
  const timers = TRAFFIC.map(([rate, what]) => {
    let n = 0
    return setInterval(() => {
      const [target, options, at] = what(n += 1)
      scene.ask(target, { tenant: TENANTS[at % TENANTS.length], ...options }).catch(() => {})
    }, 1000 / rate)
  })
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000))
  const toggle = opened.page.getByRole('button', { name: '/api/v1/campaigns', exact: true })
  await toggle.click()
  await toggle.blur()
  await opened.page.mouse.move(0, 0)
  await opened.page.screenshot({ path: file })
  timers.forEach(clearInterval)
  const { size } = fs.statSync(file)
  if (size > MOST_BYTES) throw new Error(`the picture has ${size} bytes, and ${MOST_BYTES} are the limit`)
  await opened.context.close()
  await scene.end()
}
