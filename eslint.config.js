import js from '@eslint/js';
import tseslint from 'typescript-eslint';
import { arrows } from './tooling/arrows.js';

export default tseslint.config(
  { ignores: ['**/dist/**', '**/build/**', '**/fixtures/**', '**/.turbo/**', '**/coverage/**', '**/*.d.ts'] },
  js.configs.recommended,
  ...tseslint.configs.recommended,
  {
    files: ['**/*.{ts,js,mjs}'],
    languageOptions: {
      globals: {
        console: 'readonly',
        process: 'readonly',
        URL: 'readonly',
        Buffer: 'readonly',
        performance: 'readonly',
      },
    },
    rules: {
      'max-lines': ['error', 500],
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      '@typescript-eslint/consistent-type-imports': 'error',
    },
  },
  { files: ['packages/*/src/**/*.ts'], ignores: ['**/*.test.ts', '**/*.bench.ts'], rules: { 'no-console': 'error' } },
  ...arrows,
);
