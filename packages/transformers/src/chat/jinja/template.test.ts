import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { TEMPLATE_LIMITS } from '../limits.js';
import { TemplateError } from './errors.js';
import { Template } from './template.js';

// Made by fixtures/chat/make.py with jinja2 3.1.6 as transformers 5.17.0 sets it up.
const { variables, snippets } = JSON.parse(
  readFileSync(new URL('../../../fixtures/chat/snippets.json', import.meta.url), 'utf8'),
) as { variables: Record<string, unknown>; snippets: { template: string; expected: string | { error: string } }[] };

const render = (template: string, values: Record<string, unknown> = variables) =>
  new Template(template, TEMPLATE_LIMITS).render(values, TEMPLATE_LIMITS);

describe('templates render as jinja2 does', () => {
  it.each(snippets)('$template', ({ template, expected }) => {
    if (typeof expected === 'string') expect(render(template)).toBe(expected);
    else expect(() => render(template)).toThrow(TemplateError);
  });
});
