import js from '@eslint/js';
import { builtinRules } from 'eslint/use-at-your-own-risk';
import tseslint from 'typescript-eslint';
import { arrows } from './tooling/arrows.js';
import { weightFormats } from './tooling/weight-formats.js';

const functionLength = (max) => ({ max, skipBlankLines: true, skipComments: true });
const tests = ['**/*.test.ts', '**/*.bench.ts', '**/conformance/**'];

export default tseslint.config(
  { ignores: ['**/dist/**', '**/build/**', '**/fixtures/**', '**/.turbo/**', '**/coverage/**', '**/*.d.ts'] },
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    files: ['**/*.{ts,js,mjs}'],
    languageOptions: {
      globals: Object.fromEntries(
        [
          ...['console', 'process', 'URL', 'Buffer', 'performance', 'AbortSignal'],
          ...['setTimeout', 'clearTimeout', 'setInterval', 'clearInterval'],
        ].map((name) => [name, 'readonly']),
      ),
    },
    rules: {
      'max-lines': ['error', 500],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
  {
    files: ['**/*.{ts,js,mjs}'],
    ignores: tests,
    // One rule has one severity; the second name lets functions warn before they fail.
    plugins: { early: { rules: { 'max-lines-per-function': builtinRules.get('max-lines-per-function') } } },
    rules: {
      complexity: ['error', 20],
      'max-lines-per-function': ['error', functionLength(60)],
      'early/max-lines-per-function': ['warn', functionLength(40)],
    },
  },
  { files: ['packages/*/src/**/*.ts'], ignores: tests, rules: { 'no-console': 'error' } },
  ...arrows,
  ...weightFormats,
);
