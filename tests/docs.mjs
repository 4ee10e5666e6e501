#!/usr/bin/env node
// Checks the documents: the book in docs/ and the Markdown files beside it. Needs node alone.
//
//   node tests/docs.mjs [FOLDER]
//
// - Every relative link leads to a file or folder, every anchor to a heading, every image exists.
// - Every page of docs/src is in SUMMARY.md, and every page that SUMMARY.md names exists.
// - README.md has at most 220 lines.
//
// Prints each problem as FILE:LINE: TEXT, and exits with 1 if there are any. Links to other hosts
// are not followed. tests/docs.test.mjs shows that each check can fail.

import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const README_LINES = 220
const BOOK = 'docs/src'
// Not documents of this repository: built, fetched, or the tools' own.
const SKIPPED = new Set(['target', 'node_modules', '.git', 'book'])

/** All problems of the documents below this folder, each as `FILE:LINE: TEXT`. */
export function check(root) {
  const files = markdownFiles(root)
  const pages = new Map(files.map((file) => [file, readPage(path.join(root, file))]))
  const problems = files.flatMap((file) => checkLinks(root, file, pages))
  return [...problems, ...checkSummary(root, files, pages), ...checkReadme(root)]
}

function markdownFiles(root, folder = '') {
  const entries = fs.readdirSync(path.join(root, folder), { withFileTypes: true })
  return entries.flatMap((entry) => {
    const name = path.posix.join(folder, entry.name)
    if (entry.isDirectory()) return SKIPPED.has(entry.name) ? [] : markdownFiles(root, name)
    return entry.name.endsWith('.md') ? [name] : []
  })
}

/** A page's links, each with its line, and the anchors of its headings. */
function readPage(file) {
  const text = withoutCode(fs.readFileSync(file, 'utf8'))
  return { links: linksOf(text), anchors: anchorsOf(text) }
}

/** The text with code blocks and comments blanked; lines stay where they are. */
function withoutCode(text) {
  const blank = (found) => found.replace(/[^\n]/g, ' ')
  let fence = null
  const lines = text.split('\n').map((line) => {
    const mark = /^\s*(?:>\s*)?(`{3,}|~{3,})(.*)$/.exec(line)
    if (fence) {
      // Only a bare fence of the same kind, and at least as long, ends a block.
      const ends = mark && mark[1].startsWith(fence) && mark[2].trim() === ''
      if (ends) fence = null
      return ''
    }
    if (mark) fence = mark[1]
    return fence ? '' : line
  })
  return lines.join('\n').replace(/<!--[\s\S]*?-->/g, blank)
}

function linksOf(text) {
  // Code spans hold no links, but a link's text may be one: blank what is inside of them.
  const span = /(`+)(?!`)[\s\S]*?[^`]\1(?!`)/g
  const plain = text.replace(span, (found) => found.replace(/[^\n]/g, '·'))
  const inline = /\[(?:[^[\]]|\[[^\]]*\])*\]\(\s*<?([^()\s>]*)>?(?:\s+"[^"]*")?\s*\)/g
  const defined = /^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)/gm
  const html = /<(?:img|a)\b[^>]*?\b(?:src|href)="([^"]*)"/g
  // The target of a link around an image is a link, and so is the image.
  const nested = /\[!\[[^\]]*\]\(([^()\s]*)\)/g
  return [inline, defined, html, nested].flatMap((pattern) => {
    const found = [...plain.matchAll(pattern)]
    return found.map(({ 1: target, index }) => ({ target, line: lineOf(plain, index) }))
  })
}

function lineOf(text, index) {
  return text.slice(0, index).split('\n').length
}

/** The anchors of headings, as GitHub and mdBook make them. */
function anchorsOf(text) {
  const anchors = new Set()
  const add = (name) => {
    let anchor = name
    for (let n = 1; anchors.has(anchor); n += 1) anchor = `${name}-${n}`
    anchors.add(anchor)
  }
  const headings = text.matchAll(/^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$/gm)
  for (const [, heading] of headings) add(anchorOf(heading))
  for (const [, id] of text.matchAll(/<[a-z][^>]*\b(?:id|name)="([^"]+)"/g)) anchors.add(id)
  return anchors
}

function anchorOf(heading) {
  const plain = heading.replace(/!?\[([^\]]*)\]\([^)]*\)/g, '$1').replace(/[`*]/g, '')
  return plain.toLowerCase().replace(/[^\p{L}\p{N}\s_-]/gu, '').trim().replace(/\s/g, '-')
}

function checkLinks(root, file, pages) {
  const problems = []
  for (const { target, line } of pages.get(file).links) {
    // Another host, a mail address, or a path of the site that shows the page.
    if (/^(?:[a-z][a-z0-9+.-]*:|\/)/i.test(target)) continue
    const [name, anchor] = target.split('#', 2)
    const tell = (text) => problems.push(`${file}:${line}: ${text}`)
    const found = name === '' ? file : path.posix.join(path.posix.dirname(file), decode(name))
    const exists = !found.startsWith('..') && fs.existsSync(path.join(root, found))
    const anchors = anchor === undefined ? undefined : pages.get(found)?.anchors
    if (target === '') tell('a link without a target')
    else if (!exists) tell(`${target}: there is no such file`)
    else if (anchors && !anchors.has(decode(anchor))) tell(`${target}: there is no such heading`)
  }
  return problems
}

function decode(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function checkSummary(root, files, pages) {
  const summary = `${BOOK}/SUMMARY.md`
  if (!pages.has(summary)) return [`${summary}:1: there is no such file`]
  const { links } = pages.get(summary)
  const targets = links.map(({ target }) => path.posix.join(BOOK, target.split('#', 1)[0]))
  const listed = new Set(targets)
  const ofBook = files.filter((file) => file.startsWith(`${BOOK}/`) && file !== summary)
  const missing = ofBook.filter((file) => !listed.has(file))
  const twice = targets.filter((target, at) => targets.indexOf(target) !== at)
  return [
    ...missing.map((file) => `${file}:1: SUMMARY.md does not list this page`),
    ...twice.map((target) => `${summary}:1: ${target} is listed twice`),
  ]
}

function checkReadme(root) {
  const file = path.join(root, 'README.md')
  if (!fs.existsSync(file)) return ['README.md:1: there is no such file']
  const lines = fs.readFileSync(file, 'utf8').trimEnd().split('\n').length
  if (lines <= README_LINES) return []
  return [`README.md:${lines}: it has ${lines} lines; ${README_LINES} is the limit`]
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const root = process.argv[2] ?? path.join(path.dirname(fileURLToPath(import.meta.url)), '..')
  const problems = check(root)
  for (const problem of problems) console.error(problem)
  if (problems.length > 0) {
    console.error(`${problems.length} problems in the documents`)
    process.exitCode = 1
  } else console.log('the documents are whole')
}
