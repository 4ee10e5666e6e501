// Calls to the admin API. The browser adds the token itself, as Basic credentials.

const ASK_MS = 10_000

export class Refused extends Error {
  constructor (status, data) {
    const hint = data?.hint ? `. ${data.hint}` : ''
    super(data?.error ? `${data.error}${hint}` : status === 401 ? 'the admin token is missing or wrong; load the page again' : `the response was ${status}, without a reason`)
    this.status = status
    this.data = data
  }
}

export class Unreachable extends Error {
  constructor () {
    super('the sidecar does not respond')
  }
}

// The page is hidden: nobody needs what was asked, or was to be.
export class Resting extends Error {}

// What the page asks by itself: nothing once it is hidden, also in the middle of a round. An answer that comes then is dropped.
export async function askWhileShown (path) {
  if (document.hidden) throw new Resting()
  const asked = ask(path)
  await asked.catch(() => {})
  if (document.hidden) throw new Resting()
  return asked
}

export async function ask (path, body) {
  const post = { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
  const options = { ...(body === undefined ? {} : post), cache: 'no-store', signal: AbortSignal.timeout(ASK_MS) }
  const response = await fetch(path, options).catch(() => { throw new Unreachable() })
  const data = await response.json().catch(() => null)
  if (!response.ok || data === null) throw new Refused(response.status, data)
  return data
}
